"""The center table: first values, row-sparse updates, the arithmetic of torch's SGD."""

import pytest
import torch

from manyface.base.errors import ConfigError
from manyface.centers import CenterTable, RowSGD
from manyface.centers.table import initial_rows


def table(num_rows: int = 200, **options: float) -> CenterTable:
    return CenterTable(num_rows, 6, seed=4, optimizer=RowSGD(**options))


def test_first_value_of_a_row_depends_on_seed_and_class_only() -> None:
    small, large = table(70).weight, table(20_000).weight
    assert torch.equal(large[:70], small)
    assert torch.equal(initial_rows(130, 150, dim=6, seed=4), large[130:150])
    assert not torch.equal(initial_rows(0, 70, dim=6, seed=5), small)
    assert initial_rows(9, 9, dim=6, seed=4).shape == (0, 6)


def test_first_values_are_frozen() -> None:
    """A change here changes every run: only with a new release and a line in the changelog."""
    golden = torch.tensor([-0.0056, -0.0028, -0.0148])
    torch.testing.assert_close(initial_rows(3, 4, dim=3, seed=0)[0], golden, rtol=0, atol=5e-5)


def test_first_values_are_normal_with_deviation_001() -> None:
    rows = initial_rows(0, 20_000, dim=6, seed=0)
    assert float(rows.std()) == pytest.approx(0.01, rel=0.02)
    assert abs(float(rows.mean())) < 1e-4
    assert rows.unique(dim=0).shape[0] == 20_000


@pytest.mark.parametrize("ids", [None, torch.tensor([1, 5, 6, 199])])
def test_update_is_torch_sgd(ids: torch.Tensor | None) -> None:
    ours = table(momentum=0.8, weight_decay=0.01)
    everything = slice(None) if ids is None else ids
    theirs = torch.nn.Parameter(ours.weight[everything].clone())
    optimizer = torch.optim.SGD([theirs], lr=0.3, momentum=0.8, weight_decay=0.01)
    before = ours.weight.clone()
    for step in range(4):
        theirs.grad = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(step))
        rows = ours.active(ids)
        rows.update(0, len(rows), theirs.grad.clone(), factor=torch.ones(()), lr=0.3, step=step)
        optimizer.step()
    torch.testing.assert_close(ours.weight[everything], theirs.detach(), rtol=1e-6, atol=1e-8)
    if ids is not None:
        others = torch.ones(200, dtype=torch.bool)
        others[ids] = False
        assert torch.equal(ours.weight[others], before[others])


@pytest.mark.parametrize(
    "options", [{"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}], ids=str
)
def test_impossible_optimizers_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RowSGD(**options)


def test_less_than_an_empty_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1 rows"):
        table(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_of_a_table_starts_and_is_rounded_as_in_the_whole(dtype: torch.dtype) -> None:
    whole = CenterTable(300, 8, seed=5, optimizer=RowSGD(), dtype=dtype)
    part = CenterTable(90, 8, seed=5, optimizer=RowSGD(), dtype=dtype, first_row=130)
    for each, first in ((whole, 130), (part, 0)):
        gradient = torch.linspace(-1, 1, 90 * 8).view(90, 8).clone()
        rows = each.active(torch.arange(first, first + 90))
        rows.update(0, 90, gradient, factor=torch.tensor(1.0), lr=0.1, step=3)
    assert torch.equal(whole.weight[130:220], part.weight)
    assert torch.equal(whole.velocity[130:220], part.velocity)


def test_only_the_memory_of_the_host_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a GPU that computes; `meta` stands for another GPU, where the rows are."""
    one, pinned = table(), []
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *_, pin_memory: pinned.append(pin_memory))
    for computes_on, place in (("cuda:1", "cpu"), ("cuda:1", "meta"), ("cpu", "cpu")):
        one._computes_on = torch.device(computes_on)
        one._buffer(torch.empty(3, 2, device=place), 2)
    assert pinned == [True, False, False]

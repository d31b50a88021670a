"""Heads with more or fewer identities: who stays keeps everything, who comes starts at its mean."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import manyface as mf
from manyface.base.errors import CheckpointError, ConfigError, LabelError, NonFiniteError
from manyface.centers import InFiles, RowAdamW, RowOptimizer, RowSGD
from manyface.checkpoint import load, save
from manyface.heads import CenterHead
from manyface.heads.resize import drop, grow, mean_directions
from manyface.heads.row_order import SHUFFLED_FROM, RowOrder
from manyface.train.state import pack

DIM = 6
OPTIMIZERS: dict[str, Callable[[], RowOptimizer]] = {
    "frozen": RowSGD,
    "without momentum": lambda: RowSGD(momentum=0.0),
    "lazy-exact": lambda: RowSGD(mode="lazy-exact"),
    "adamw": RowAdamW,
    "row-wise": lambda: RowAdamW(row_wise_second_moment=True),
}
SIZES = {
    "small": (50, 60),
    "becomes shuffled": (SHUFFLED_FROM - 3, SHUFFLED_FROM + 4),
    "shuffled": (SHUFFLED_FROM + 5, SHUFFLED_FROM + 400),
}


def make(num_classes: int, optimizer: str = "frozen", **options: object) -> CenterHead:
    shared = {"margin": mf.CosFace(0.3), "scale": 16.0, "sample_rate": 0.02, **options}
    return mf.PartialFC(
        num_classes=num_classes, dim=DIM, optimizer=OPTIMIZERS[optimizer](), **shared
    )


def train(head: CenterHead, labels: Tensor, *, seed: int) -> float:
    embeddings = torch.randn(len(labels), DIM, generator=torch.Generator().manual_seed(seed))
    loss = head(embeddings, labels)
    loss.backward()
    head.step(0.1)
    return loss.item()


def trained(num_classes: int, optimizer: str = "frozen", **options: object) -> CenterHead:
    head = make(num_classes, optimizer, **options)
    for seed in range(4):
        train(head, torch.arange(seed, num_classes, num_classes // 8), seed=seed)
    return head


def of_classes(head: CenterHead, classes: Tensor) -> dict[str, Tensor]:
    """Everything stored of `classes`, as it is."""
    rows = head.row_order(classes)
    return {name: values[rows] for name, values in head.centers.named_buffers()}


def assert_same_classes(old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
    assert old.keys() == new.keys()
    for name, values in old.items():
        assert torch.equal(values, new[name]), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_growing(optimizer: str, dtype: torch.dtype, size: str) -> None:
    before, after = SIZES[size]
    old, new = trained(before, optimizer, dtype=dtype), make(after, optimizer, dtype=dtype, seed=9)
    assert (new.row_order.is_shuffled, new.num_steps) == (after >= SHUFFLED_FROM, 0)
    means = torch.randn(after - before, DIM, generator=torch.Generator().manual_seed(5))
    grow(new, old.state_dict(), 7 * means)
    everybody, comers = torch.arange(before), torch.arange(before, after)
    assert_same_classes(of_classes(old, everybody), of_classes(new, everybody))
    assert (new.num_steps, new.seed) == (4, 9)
    found = of_classes(new, comers)
    starts = found.pop("weight").float()
    lengths = torch.linalg.vector_norm(starts, dim=1)
    typical = torch.linalg.vector_norm(old.centers.weight.float(), dim=1).median()
    coarse = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 0}
    torch.testing.assert_close(lengths, typical.expand(after - before), **coarse)
    unit = means / torch.linalg.vector_norm(means, dim=1, keepdim=True)
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(starts / lengths[:, None], unit, rtol=tolerance, atol=tolerance)
    touched = found.pop("touched", None)
    assert touched is None or bool((touched == 4).all())
    assert all(not values.any() for values in found.values())
    train(new, torch.cat([everybody[:5], comers[:5]]), seed=8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("optimizer", ["frozen", "lazy-exact", "adamw"])
def test_dropping(optimizer: str, size: str) -> None:
    after, before = SIZES[size]
    old, new = trained(before, optimizer), make(after, optimizer, seed=9)
    ids = torch.randperm(before, generator=torch.Generator().manual_seed(2))[: before - after]
    renumbered = drop(new, old.state_dict(), ids)
    assert renumbered.shape == (before,)
    assert bool((renumbered[ids] == -1).all())
    stays = (renumbered >= 0).nonzero().squeeze(1)
    assert torch.equal(renumbered[stays], torch.arange(after)), "ids close ranks in their order"
    assert_same_classes(of_classes(old, stays), of_classes(new, renumbered[stays]))
    train(new, torch.arange(5), seed=8)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_head_that_grew_by_nobody_trains_on_as_the_old_one(optimizer: str) -> None:
    """Missed steps included: rows that were never touched since are read in the steps to come."""
    old, same = trained(50, optimizer, sample_rate=0.3), make(50, optimizer, sample_rate=0.3)
    grow(same, old.state_dict(), torch.empty(0, DIM))
    for seed in range(20, 30):
        labels = torch.arange(seed % 5, 50, 7)
        assert train(old, labels, seed=seed) == train(same, labels, seed=seed)
    assert_same_classes(*(of_classes(head, torch.arange(50)) for head in (old, same)))


def test_dropping_who_came_gives_the_old_head_back() -> None:
    old, larger, again = trained(50, "adamw"), make(60, "adamw"), make(50, "adamw")
    grow(larger, old.state_dict(), torch.eye(10, DIM) + 0.1)
    drop(again, larger.state_dict(), torch.arange(50, 60))
    for name, values in old.state_dict().items():
        assert torch.equal(values, again.state_dict()[name]), name


def test_a_checkpoint_grows_into_files(tmp_path: Path) -> None:
    old = trained(50, "lazy-exact")
    tensors: dict[str, Tensor] = {}
    pack(old.state_dict(), tensors)
    path = save(tmp_path / "checkpoints", step=4, tensors={"head": tensors}, state={})
    new = make(53, "lazy-exact", place=InFiles(tmp_path / "rows"))
    grow(new, load(path).tensors["head"], torch.eye(3, DIM))
    everybody = torch.arange(50)
    assert_same_classes(of_classes(old, everybody), of_classes(new, everybody))


def test_a_table_in_the_order_of_its_classes_becomes_a_shuffled_one_and_back() -> None:
    """As insightface's drop-in keeps it."""
    ordered = [make(SHUFFLED_FROM + extra) for extra in (5, 0)]
    for head in ordered:
        head.row_order = RowOrder(head.num_classes, seed=head.seed, shuffled=False)
    old, back = ordered
    train(old, torch.arange(9), seed=1)
    shuffled = make(SHUFFLED_FROM + 6)
    grow(shuffled, old.state_dict(), torch.ones(1, DIM))
    everybody = torch.arange(SHUFFLED_FROM + 5)
    assert shuffled.row_order.is_shuffled
    assert_same_classes(of_classes(old, everybody), of_classes(shuffled, everybody))
    drop(back, shuffled.state_dict(), torch.arange(SHUFFLED_FROM, SHUFFLED_FROM + 6))
    assert not back.row_order.is_shuffled
    assert torch.equal(back.centers.weight, old.centers.weight[:SHUFFLED_FROM])
    again = make(SHUFFLED_FROM)
    with pytest.raises(CheckpointError, match="in the order of their classes"):
        again.load_state_dict(back.state_dict())
    with pytest.raises(CheckpointError, match="are shuffled"):
        back.load_state_dict(again.state_dict())
    back.load_state_dict(back.state_dict())
    assert not back.row_order.is_shuffled


def test_running_averages_go_along() -> None:
    old, new = trained(50, margin=mf.AdaFace()), make(51, margin=mf.AdaFace())
    grow(new, old.state_dict(), torch.ones(1, DIM))
    assert new.averages.get_extra_state() == old.averages.get_extra_state()
    assert (
        new.averages.get_extra_state() != make(51, margin=mf.AdaFace()).averages.get_extra_state()
    )


def test_mean_directions() -> None:
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.1], [0.0, -5.0], [8.0, 0.0]])
    means = mean_directions(embeddings, torch.tensor([0, 0, 1, 2]), num_classes=3)
    half = 0.5**0.5
    torch.testing.assert_close(means, torch.tensor([[half, half], [0.0, -1.0], [1.0, 0.0]]))
    with pytest.raises(ConfigError, match=r"mean embedding 2 has length 0"):
        mean_directions(embeddings[:3], torch.tensor([0, 0, 1]), num_classes=3)
    with pytest.raises(LabelError, match=r"label 3 .*\[0, 3\)"):
        mean_directions(embeddings, torch.tensor([0, 0, 1, 3]), num_classes=3)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    old = trained(50)
    state, new = old.state_dict(), make(52)
    before = new.centers.weight.clone()
    with pytest.raises(ConfigError, match=r"expected a head of 53 classes, got one of 52"):
        grow(new, state, torch.ones(3, DIM))
    with pytest.raises(ConfigError, match=r"means must be \[M, 6\], got \[2, 5\]"):
        grow(new, state, torch.ones(2, 5))
    with pytest.raises(ConfigError, match=r"mean embedding 1 has length 0"):
        grow(new, state, torch.tensor([[1.0] * DIM, [0.0] * DIM]))
    with pytest.raises(NonFiniteError, match=r"mean embedding 0 holds NaN"):
        grow(new, state, torch.full((2, DIM), float("nan")))
    with pytest.raises(ConfigError, match="expected one center per class, got sub_centers=2"):
        grow(make(52, sub_centers=2), state, torch.ones(2, DIM))
    three = make(10, sub_centers=3).state_dict()
    with pytest.raises(ConfigError, match="expected one center per class, got sub_centers=3"):
        grow(make(31), three, torch.ones(1, DIM))
    with pytest.raises(CheckpointError, match="these are 3 centers per class, and this head has 1"):
        make(30).load_state_dict(three)
    for other in (make(52, "adamw"), make(52, dtype=torch.bfloat16)):
        with pytest.raises(ConfigError, match=r"same dim, dtype and optimizer"):
            grow(other, state, torch.ones(2, DIM))
    with pytest.raises(CheckpointError, match=r"got \['bias', 'weight'\]"):
        grow(new, torch.nn.Linear(2, 2).state_dict(), torch.ones(2, DIM))
    with pytest.raises(ConfigError, match="stands twice"):
        drop(make(48), state, torch.tensor([3, 3]))
    with pytest.raises(LabelError, match="label 50"):
        drop(make(49), state, torch.tensor([50]))
    assert torch.equal(new.centers.weight, before)

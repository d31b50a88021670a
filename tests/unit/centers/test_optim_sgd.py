"""Row-sparse SGD: what each mode makes of missed steps, against torch or a written-out rule."""

import functools
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from manyface.base.errors import CheckpointError, ConfigError
from manyface.centers.sgd import RowSGD
from manyface.centers.window import Window
from manyface.testing.row_optim import DecayOnlySGD, DrivenTable

NUM_ROWS, DIM, NUM_STEPS = 24, 3, 500
BOUNDS = [1, 7, 64, 10_000]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def first_rows() -> Tensor:
    return torch.randn(NUM_ROWS, DIM, dtype=torch.float64, generator=generator(0))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learning_rate(step: int) -> float:
    """A cosine from 0.3 with a warm-up, exactly 0 in steps 100-129 and from step 450 on."""
    if 100 <= step < 130 or step >= 450:
        return 0.0
    return 0.3 * min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / 450)) / 2


def touches() -> Tensor:
    """Which rows take part, bool [steps, N]; row i with gaps of 1 to 1 + 199 i / (N - 1)."""
    taking_part = torch.zeros(NUM_STEPS, NUM_ROWS, dtype=torch.bool)
    random = generator(1)
    for row in range(NUM_ROWS):
        longest = 1 + 199 * row // (NUM_ROWS - 1)
        gaps = torch.randint(1, longest + 1, (NUM_STEPS,), generator=random)
        gaps[:2] = torch.tensor([row % 5, longest])
        steps = gaps.cumsum(0)
        taking_part[steps[steps < NUM_STEPS], row] = True
    return taking_part


@functools.cache
def training() -> list[tuple[Tensor, Tensor, float]]:
    """(ids [k], gradient [k, D], lr) of each step; some steps touch nothing."""
    random, steps = generator(2), []
    for step, taking_part in enumerate(touches()):
        ids = taking_part.nonzero()[:, 0] if step % 50 != 3 else torch.arange(0)
        gradient = torch.randn(ids.shape[0], DIM, dtype=torch.float64, generator=random)
        steps.append((ids, gradient, learning_rate(step)))
    return steps


def drive(optimizer: RowSGD, *, chunk_size: int = 10) -> DrivenTable:
    """A table after all of `training`, up to date."""
    table = DrivenTable(first_rows(), optimizer, chunk_size=chunk_size)
    for ids, gradient, lr in training():
        table.read(ids)
        table.step(ids, gradient, lr=lr)
    table.flush()
    return table


class DenseSGD:
    """torch.optim.SGD on the whole matrix, gradient zero where no row took part."""

    def __init__(self, rows: Tensor, *, momentum: float, weight_decay: float) -> None:
        self.rows = torch.nn.Parameter(rows.clone())
        self._optimizer = torch.optim.SGD(
            [self.rows], lr=1.0, momentum=momentum, weight_decay=weight_decay
        )

    def step(self, ids: Tensor, gradient: Tensor, *, lr: float) -> None:
        self.rows.grad = torch.zeros_like(self.rows).index_copy_(0, ids, gradient)
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.step()

    @property
    def velocity(self) -> Tensor:
        return self._optimizer.state[self.rows]["momentum_buffer"]


def test_the_training_has_what_it_promises() -> None:
    steps = [touches()[:, row].nonzero()[:, 0] for row in range(NUM_ROWS)]
    gaps = torch.cat([each.diff() for each in steps])
    assert gaps.min() == 1
    assert gaps.max() == 200
    rates = [learning_rate(step) for step in range(NUM_STEPS)]
    assert len(set(rates)) > 400
    assert rates.count(0.0) == 80


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lazy_exact_is_dense_sgd(momentum: float, weight_decay: float, bound: int) -> None:
    """Also in between: the forward pass of every step reads the rows of the dense matrix."""
    optimizer = RowSGD(momentum, weight_decay, "lazy-exact", max_window=bound)
    ours = DrivenTable(first_rows(), optimizer, chunk_size=10)
    dense = DenseSGD(first_rows(), momentum=momentum, weight_decay=weight_decay)
    for ids, gradient, lr in training():
        torch.testing.assert_close(ours.read(ids), dense.rows.detach()[ids], **EXACT)
        ours.step(ids, gradient, lr=lr)
        dense.step(ids, gradient, lr=lr)
    ours.flush()
    torch.testing.assert_close(ours.rows, dense.rows.detach(), **EXACT)
    if momentum:
        torch.testing.assert_close(ours.state["velocity"], dense.velocity, **EXACT)


def test_lazy_exact_rounds_no_worse_than_dense_sgd_in_float32() -> None:
    exact = DenseSGD(first_rows(), momentum=0.9, weight_decay=5e-4)
    dense = DenseSGD(first_rows().float(), momentum=0.9, weight_decay=5e-4)
    ours = DrivenTable(first_rows().float(), RowSGD(mode="lazy-exact"), chunk_size=10)
    for ids, gradient, lr in training():
        exact.step(ids, gradient, lr=lr)
        dense.step(ids, gradient.float(), lr=lr)
        ours.read(ids)
        ours.step(ids, gradient.float(), lr=lr)
    ours.flush()
    theirs_off = (dense.rows - exact.rows).detach().abs().max()
    assert 0 < (ours.rows - exact.rows.detach()).abs().max() <= theirs_off


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decay_only_is_the_written_out_rule(momentum: float, bound: int) -> None:
    optimizer = RowSGD(momentum, 0.01, "decay-only", max_window=bound)
    ours = DrivenTable(first_rows(), optimizer, chunk_size=10)
    slow = DecayOnlySGD(first_rows(), momentum=momentum, weight_decay=0.01)
    for ids, gradient, lr in training():
        torch.testing.assert_close(ours.read(ids), slow.rows[ids], **EXACT)
        ours.step(ids, gradient, lr=lr)
        slow.step(ids, gradient, lr=lr)
    ours.flush()
    torch.testing.assert_close(ours.rows, slow.rows, **EXACT)
    if momentum:
        torch.testing.assert_close(ours.state["velocity"], slow.velocity, **EXACT)


def test_frozen_keeps_bits_of_rows_and_momentum() -> None:
    table = DrivenTable(first_rows(), RowSGD(0.9, 0.01), chunk_size=10)
    for ids, gradient, lr in training():
        rows, velocity = table.rows.clone(), table.state["velocity"].clone()
        table.read(ids)
        table.step(ids, gradient, lr=lr)
        table.flush()
        others = torch.ones(NUM_ROWS, dtype=torch.bool).index_fill_(0, ids, False)
        assert torch.equal(table.rows[others], rows[others])
        assert torch.equal(table.state["velocity"][others], velocity[others])


def test_frozen_rows_each_see_their_own_steps_of_torch_sgd() -> None:
    table = drive(RowSGD(0.9, 0.01))
    alone = [DenseSGD(row[None], momentum=0.9, weight_decay=0.01) for row in first_rows()]
    for ids, gradient, lr in training():
        for row, its_gradient in zip(ids.tolist(), gradient, strict=True):
            alone[row].step(torch.tensor([0]), its_gradient[None], lr=lr)
    theirs = torch.cat([each.rows.detach() for each in alone])
    torch.testing.assert_close(table.rows, theirs, **EXACT)


def test_modes_differ() -> None:
    rows = [drive(RowSGD(0.9, 0.01, mode)).rows for mode in ("frozen", "lazy-exact", "decay-only")]
    for first, second in itertools.combinations(rows, 2):
        assert (first - second).abs().max() > 1e-2


@pytest.mark.parametrize("mode", ["lazy-exact", "decay-only"])
def test_chunks_and_needless_readings_change_no_bit(mode: str) -> None:
    plain = drive(RowSGD(0.9, 0.01, mode, max_window=64), chunk_size=NUM_ROWS)
    curious = DrivenTable(first_rows(), RowSGD(0.9, 0.01, mode, max_window=64), chunk_size=1)
    for ids, gradient, lr in training():
        curious.read(ids)
        curious.read(ids)
        curious.step(ids, gradient, lr=lr)
    curious.flush()
    assert torch.equal(curious.rows, plain.rows)
    assert torch.equal(curious.state["velocity"], plain.state["velocity"])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("mode", ["frozen", "lazy-exact", "decay-only"])
def test_a_run_saved_in_mid_window_continues_bit_for_bit(mode: str, momentum: float) -> None:
    straight = drive(RowSGD(momentum, 0.01, mode, max_window=64))
    first = DrivenTable(first_rows(), RowSGD(momentum, 0.01, mode, max_window=64), chunk_size=10)
    second = None
    for step, (ids, gradient, lr) in enumerate(training()):
        if step == 150:  # 2 windows and 22 steps
            second = DrivenTable(
                first.rows, RowSGD(momentum, 0.01, mode, max_window=64), chunk_size=10
            )
            second.state = first.state
            second.optimizer.load_state_dict(first.optimizer.state_dict())
        table = second or first
        table.read(ids)
        table.step(ids, gradient, lr=lr)
    assert second is not None
    second.flush()
    assert torch.equal(second.rows, straight.rows)


def test_state_dict_is_a_copy() -> None:
    optimizer = RowSGD(mode="lazy-exact")
    optimizer.finish_step(lr=0.1)
    saved = optimizer.state_dict()
    assert {name: list(value.shape) for name, value in saved.items()} == {
        "window": [2, 2, 2],
        "num_steps": [],
    }
    before = saved["window"].clone()
    optimizer.finish_step(lr=0.1)
    assert torch.equal(saved["window"], before)


def test_rows_keep_only_the_state_that_their_mode_needs() -> None:
    def declared(*arguments: object) -> dict[str, tuple[int, ...]]:
        state = RowSGD(*arguments).row_state(dim=5, dtype=torch.float32)
        return {name: (*spec.shape, spec.dtype) for name, spec in state.items()}

    velocity, touched = {"velocity": (5, torch.float32)}, {"touched": (torch.int32,)}
    assert declared(0.9, 5e-4, "frozen") == velocity
    assert declared(0.0, 5e-4, "frozen") == {}
    assert declared(0.9, 5e-4, "lazy-exact") == velocity | touched
    assert declared(0.9, 0.0, "lazy-exact") == velocity | touched
    assert declared(0.0, 5e-4, "lazy-exact") == touched
    assert declared(0.0, 0.0, "lazy-exact") == {}
    assert declared(0.9, 5e-4, "decay-only") == velocity | touched
    assert declared(0.9, 0.0, "decay-only") == velocity


def test_an_interrupted_flush_can_be_repeated() -> None:
    whole, broken = (drive_some(RowSGD(mode="lazy-exact")) for _ in range(2))
    whole.flush()

    def interrupted() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for _, rows, state in broken._chunks(torch.arange(NUM_ROWS // 2)):
            yield rows, state
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.optimizer.flush_(interrupted())
    broken.flush()
    assert torch.equal(broken.rows, whole.rows)
    assert torch.equal(broken.state["touched"], torch.full((NUM_ROWS,), 30, dtype=torch.int32))


def drive_some(optimizer: RowSGD) -> DrivenTable:
    table = DrivenTable(first_rows(), optimizer, chunk_size=10)
    for ids, gradient, lr in training()[:30]:
        table.read(ids)
        table.step(ids, gradient, lr=lr)
    return table


def test_the_window_does_not_grow_beyond_its_bound() -> None:
    optimizer = RowSGD(mode="lazy-exact", max_window=2)
    optimizer.finish_step(lr=0.1)
    assert not optimizer.window_is_full
    optimizer.finish_step(lr=0.1)
    assert optimizer.window_is_full
    with pytest.raises(RuntimeError, match="call flush_"):
        optimizer.finish_step(lr=0.1)
    assert not RowSGD(mode="frozen", max_window=2).window_is_full


def test_no_flush_and_no_saving_in_the_middle_of_a_step() -> None:
    table = drive_some(RowSGD(mode="lazy-exact"))
    state = {name: values[:1] for name, values in table.state.items()}
    table.optimizer.update_(table.rows[:1], state, torch.ones(1, DIM, dtype=torch.float64), lr=0.1)
    with pytest.raises(RuntimeError, match="middle of a step"):
        table.flush()
    with pytest.raises(RuntimeError, match="middle of a step"):
        table.optimizer.state_dict()
    table.optimizer.finish_step(lr=0.1)
    table.flush()


def test_rows_of_another_window_are_noticed() -> None:
    table = drive_some(RowSGD(mode="lazy-exact"))
    table.flush()
    table.optimizer.finish_step(lr=0.1)
    table.state["touched"].zero_()
    with pytest.raises(IndexError):
        table.read(torch.tensor([0]))


def test_a_flush_without_missed_steps_reads_no_row() -> None:
    def nobody() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        raise AssertionError
        yield

    RowSGD(mode="lazy-exact").flush_(nobody())
    RowSGD(mode="frozen").flush_(nobody())


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (RowSGD(mode="frozen"), RowSGD(mode="lazy-exact")),
        (RowSGD(mode="lazy-exact"), RowSGD(mode="frozen")),
        (RowSGD(mode="lazy-exact"), RowSGD(mode="decay-only")),
        (RowSGD(mode="decay-only"), RowSGD(mode="decay-only", max_window=2)),
    ],
    ids=["frozen-lazy", "lazy-frozen", "lazy-decay", "too-long"],
)
def test_state_of_another_optimizer_is_refused(saved: RowSGD, loaded: RowSGD) -> None:
    for _ in range(3):
        saved.finish_step(lr=0.1)
    with pytest.raises(CheckpointError, match="load it into an optimizer"):
        loaded.load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"momentum": math.nan},
        {"weight_decay": -1.0},
        {"weight_decay": math.inf},
        {"mode": "lazy"},
        {"mode": "lazy-exact", "max_window": 0},
        {"mode": "decay-only", "max_window": 2**31 - 1},
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="got "):
        RowSGD(**options)


def test_a_window_that_moves_to_another_device_in_inference_mode_can_still_grow() -> None:
    window = Window(size=2, bound=4)
    with torch.inference_mode():
        window.products(torch.zeros(3, dtype=torch.int32, device="meta"))
    window.append([[1.0, 0.0], [0.0, 1.0]])
    assert window.length == 1

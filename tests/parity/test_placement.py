"""Wherever rows lie, and read ahead or not: the same losses, rows and state, bit for bit."""

import copy
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.centers import CenterTable, InFiles, InMemory, Place, RowAdamW, RowOptimizer, RowSGD
from manyface.centers.read_ahead import RowBlocks
from manyface.centers.staging import Stage
from manyface.heads import CenterHead

CLASSES, DIM, BATCH, STEPS = 301, 9, 13, 20
OPTIMIZERS: dict[str, Callable[[], RowOptimizer]] = {
    "frozen": RowSGD,
    "without momentum": lambda: RowSGD(momentum=0.0),
    "lazy-exact": lambda: RowSGD(mode="lazy-exact", max_window=6),
    "adamw": lambda: RowAdamW(max_window=6),
    "row-wise adamw": lambda: RowAdamW(row_wise_second_moment=True),
}


def make(rate: float | None, *, block: int | None = None, **options: object) -> CenterHead:
    shared = {"num_classes": CLASSES, "dim": DIM, "margin": mf.CosFace(0.4), "seed": 3}
    shared |= {"chunk_size": 32, "scale": 16.0, **options}
    if rate is None:
        return mf.FullFC(**shared)
    return mf.PartialFC(sample_rate=rate, block=block, **shared)


def train(head: CenterHead, *, steps: int = STEPS, accumulates: bool = False) -> list[float]:
    draw, losses = torch.Generator().manual_seed(1), []
    for step in range(steps):
        for _ in range(1 + (accumulates and step % 2)):
            loss = head(
                torch.randn(BATCH, DIM, generator=draw),
                torch.randint(CLASSES, (BATCH,), generator=draw),
            )
            loss.backward()
            losses.append(loss.item())
        if accumulates:
            head.clip_grad_norm_(1.0)
        head.step(0.1)
    return losses


def assert_equal(one: CenterHead, other: CenterHead) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        assert torch.equal(values, theirs[name]), name


@pytest.mark.parametrize("rate, block", [(None, None), (0.4, 1), (0.4, 4), (0.0, None)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_mapped_files_equal_memory(
    tmp_path: Path, optimizer: str, dtype: torch.dtype, rate: float | None, block: int | None
) -> None:
    held, mapped = (
        make(rate, block=block, dtype=dtype, optimizer=OPTIMIZERS[optimizer](), place=place)
        for place in (None, InFiles(tmp_path))
    )
    assert train(held) == train(mapped)
    assert_equal(held, mapped)


@pytest.mark.parametrize("rate", [None, 0.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accumulates", [False, True])
def test_rows_that_are_moved_to_another_device_and_back(
    optimizer: str,
    dtype: torch.dtype,
    rate: float | None,
    accumulates: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is one device here, so the table is told that rows are elsewhere: all are copied."""
    held, moved = (
        make(rate, block=4, dtype=dtype, optimizer=OPTIMIZERS[optimizer](), place=place)
        for place in (None, InMemory("cpu"))
    )
    losses = train(held, accumulates=accumulates)
    monkeypatch.setattr(CenterTable, "is_elsewhere", True)
    staged = Counter[bool]()
    monkeypatch.setattr(CenterTable, "stage", counting(CenterTable.stage, staged))
    assert moved.centers.active().read(3, 9).data_ptr() != moved.centers.weight[3:].data_ptr()
    assert losses == train(moved, accumulates=accumulates)
    assert_equal(held, moved)
    classes = torch.tensor([7, 0, 7, 300])
    assert torch.equal(held.class_centers(classes), moved.class_centers(classes))
    # A flush, each sixth step at most, leaves the step after it without a stage.
    assert rate is None or staged[True] > 2 * staged[False]


def counting(
    stage: Callable[[CenterTable], Stage | None], counts: Counter[bool]
) -> Callable[[CenterTable], Stage | None]:
    """`stage`, counting whether there is one."""

    def counted(table: CenterTable) -> Stage | None:
        found = stage(table)
        counts[found is not None] += 1
        return found

    return counted


def test_rows_that_others_have_written_are_not_taken_from_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A load or an edit between two steps; one that is copied has no stage of the other."""
    held, moved = (make(0.4, block=4, place=place) for place in (None, InMemory("cpu")))
    train(held, steps=2)
    monkeypatch.setattr(CenterTable, "is_elsewhere", True)
    train(moved, steps=2)
    monkeypatch.setattr(CenterTable, "is_elsewhere", False)
    for each in (held, moved):
        each.centers.weight.mul_(2.0)
    losses = train(held, steps=3)
    monkeypatch.setattr(CenterTable, "is_elsewhere", True)
    other = copy.deepcopy(moved)
    state = copy.deepcopy(moved.state_dict())
    assert train(moved, steps=3) == losses
    assert train(other, steps=3) == losses
    moved.load_state_dict(state)
    assert train(moved, steps=3) == losses


@pytest.mark.parametrize("place", [InMemory("cpu"), None], ids=["placed", "on the device"])
def test_modules_that_are_moved(place: Place | None) -> None:
    head = make(0.4, place=place)
    before = head.centers.weight.clone()
    assert head.to("cpu").centers.device == torch.device("cpu")
    if place is None:
        assert head.to("meta").centers.weight.is_meta
        return
    head.to("meta")  # stands for a GPU: what computes is there, the rows are where they were
    assert (head.centers.device.type, head.centers.is_elsewhere) == ("meta", True)
    assert torch.equal(head.centers.weight, before)
    with pytest.raises(ConfigError, match=r"a place of their own stay torch\.float32"):
        head.half()


@pytest.mark.parametrize("block", [1, 4])
def test_the_rows_of_a_step_are_asked_for_one_step_before(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = make(0.4, block=block, place=InFiles(tmp_path))
    asked: list[RowBlocks] = []
    monkeypatch.setattr(head.centers, "read_ahead", lambda draw: asked.append(draw()))
    for step in range(STEPS):
        labels = torch.arange(step, step + BATCH)
        drawn = head.select(labels).ids
        head._look_ahead()
        head.select(labels)  # a second forward before the step asks for nothing
        head._look_ahead()
        assert len(asked) == step + 2
        starts = asked[step].starts
        rows = {start + k for start in starts.tolist() for k in range(asked[step].size)}
        assert set(drawn.tolist()) <= rows | set(labels.tolist())
        assert len(rows) <= len(drawn) + BATCH + block
        head.num_steps += 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_sample_is_asked_for_in_a_thread_and_own_classes_at_once(
    tmp_path: Path, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: Counter[int] = Counter()

    def note(*arguments: object) -> None:
        threads[threading.get_ident()] += 1

    monkeypatch.setattr("os.posix_fadvise", note)
    monkeypatch.setattr(CenterTable, "is_elsewhere", elsewhere)
    head = make(0.4, place=InFiles(tmp_path))
    train(head, steps=3)
    head.centers._place._read_ahead.wait()
    assert len(threads) == 2
    assert threads[threading.get_ident()] >= 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.float64], ids=str)
def test_operands_of_another_kind_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(
        ConfigError, match=rf"operands must be None, torch\.bfloat16 .* got {dtype}"
    ):
        make(0.4, operands=dtype)
    make(0.4, operands=torch.float32)

"""Whole runs on several ranks: equal to one process where they can be, resumed on any number."""

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import on_ranks, wait_for_file
from tiny_recipe import TINY
from torch import nn

from manyface.base.errors import ManyfaceError, ReplicaError
from manyface.checkpoint import RowShard, load, newest
from manyface.config import parse_config
from manyface.data import Augmentation, DualLoader, Loader
from manyface.data.synthetic import SyntheticFaces
from manyface.heads import F2C, DynamicClassPool, PartialFC
from manyface.margins import CosFace
from manyface.observe import read_events
from manyface.observe.progress import SilentProgress
from manyface.parallel import ALONE, HERE, Ranks, Shard
from manyface.train import StopFlag, train
from manyface.train.compare import compare_copies
from manyface.train.copies import Copies
from manyface.train.method import Classification, PoolTraining
from manyface.train.step import FiniteGuard, train_step
from manyface.train.validation import Validation

SETTINGS = [*TINY, "train.batch_size=8", "run.precision=fp32", "run.device=cpu"]
FLAVOURS = {
    "full": [],
    "partial": ["head.sample_rate=0.4"],
    "lazy": ["head.sample_rate=0.4", "head.missed_steps=lazy-exact", "head.dtype=bfloat16"],
    "adamw": ["head.sample_rate=0.4", "head.optimizer=adamw", "optimizer.accumulation=2"],
    "watching": ["head.margin=adaface", "head.negatives=curricular", "head.sub_centers=2"],
    "averaged": ["train.ema=0.9", "head.sample_rate=0.5", "head.label_smoothing=0.1"],
    "hard": ["head.sample_rate=0.6", "head.sampler=hard", "head.hard_refresh_steps=3"],
    "f2c": ["head.method=f2c", "pool.ratio=0.4", "train.batch_size=16"],
    "f2c-prefilled": [
        *("head.method=f2c", "pool.slots=13", "pool.prefill=true"),
        *("pool.features=2", "backbone.dropout=0.3"),
    ],
    "virtual": ["head.method=virtual", "pool.ratio=0.5", "pool.identity_share=1.0"],
    "balanced": ["head.sample_rate=0.6", "head.sampler=balanced", "data.synthetic.long_tail=1"],
}
FACES: dict[str, Any] = {
    "num_identities": 20,
    "images_per_identity": 4,
    "image_size": 32,
    "seed": 1,
}


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("kind", [Loader, DualLoader])
def test_ranks_make_one_batch_together(kind: type, num_ranks: int) -> None:
    options = {"batch_size": 18, "seed": 3, "augmentation": Augmentation(shift=2)}
    whole = kind(SyntheticFaces(**FACES), **options)
    parts = [
        kind(SyntheticFaces(**FACES), rank=rank, num_ranks=num_ranks, **options)
        for rank in range(num_ranks)
    ]
    for step in (0, 5, 11):  # across epochs
        batches = [part.batch(step) for part in parts]
        expected = whole.batch(step)
        halves = 1 if kind is Loader else 2
        for name in ("images", "labels"):
            cut = [getattr(batch, name).chunk(halves) for batch in batches]
            together = torch.cat([torch.cat(side) for side in zip(*cut, strict=True)])
            assert torch.equal(together, getattr(expected, name))
        assert all(batch.num_images == 18 for batch in batches)


# --- steps ----------------------------------------------------------------------------------------


def steps(accumulation: int) -> tuple[list[float], list[torch.Tensor]]:
    """Losses and gradient norms, and the net, of a net without batch norm, in float64."""
    return _steps(Ranks(), accumulation)


def _steps(ranks: Ranks, accumulation: int) -> tuple[list[float], list[torch.Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Tanh(), nn.Linear(8, 6))
    net = net.double()
    head = PartialFC(
        num_classes=20,
        dim=6,
        margin=CosFace(0.3),
        sample_rate=0.5,
        scale=8.0,
        dtype=torch.float64,
        ranks=ranks,
    )
    method = _InDoubles(
        net,
        head,
        torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9),
        learning_rate=0.1,
        head_learning_rate=0.2,
        device=torch.device("cpu"),
        clip_norm=0.5,
        ranks=ranks,
    )
    loader = Loader(
        SyntheticFaces(**FACES),
        batch_size=7,
        seed=3,
        augmentation=Augmentation(shift=2),
        rank=ranks.rank,
        num_ranks=ranks.size,
    )
    numbers = []
    guard = FiniteGuard(method.device)
    for step in range(4):
        batches = [loader.batch(step * accumulation + k) for k in range(accumulation)]
        done = train_step(method, batches, step=step, factor=1.0, seed=0, guard=guard, ranks=ranks)
        numbers += [float(done.loss), float(done.grad_norm)]
    return numbers, [p.detach().clone() for p in net.parameters()]


class _InDoubles(Classification):
    def loss(self, batch: Any) -> torch.Tensor:
        self.head.announce(batch.labels)
        return self.head(self.copies(batch.images.double()), batch.labels)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_steps_are_those_of_one_process(num_ranks: int, accumulation: int) -> None:
    expected, weights = _steps(ALONE, accumulation)
    for numbers, found in on_ranks(steps, num_ranks, accumulation):
        assert numbers == pytest.approx(expected, rel=1e-10)
        for mine, theirs in zip(found, weights, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def drift(rank_of_flip: int, kind: str) -> str:
    """Flip the lowest bit of one number on one rank."""
    ranks = Ranks()
    tensors: dict[str, Any] = {
        "net.weight": torch.linspace(-1, 1, 1001),
        "net.half": torch.ones(7, dtype=torch.bfloat16),
        "net.mask": torch.ones(5, dtype=torch.bool),
        "count": torch.tensor(17),
        "rows": RowShard(
            torch.full((1, 2), float(ranks.rank)), Shard(ranks.rank, ranks.rank + 1, 3)
        ),
    }
    if ranks.rank == rank_of_flip:
        if kind == "net.mask":
            tensors[kind][3] = False
        else:
            integers = {4: torch.int32, 2: torch.int16, 8: torch.int64}
            bits = tensors[kind].view(integers[tensors[kind].element_size()])
            bits.view(-1)[-1] ^= 1
    try:
        compare_copies(tensors, ranks)
    except ReplicaError as error:
        return str(error)
    return "equal"


@pytest.mark.parametrize("kind", ["net.weight", "net.half", "net.mask", "count"])
def test_one_flipped_bit_is_found_and_its_rank_named(kind: str) -> None:
    assert on_ranks(drift, 3, 5, kind) == ["equal"] * 3
    for rank in range(3):
        found = on_ranks(drift, 3, rank, kind)
        assert len(set(found)) == 1
        assert found[0].startswith(f"rank {rank} of 3 has another {kind} than the other ranks")


def flip_in_training(folder: Path) -> str:
    config = parse_config(
        "",
        [f"run.directory={folder}", *SETTINGS, "train.compare_every=3", "train.checkpoint_every=2"],
    )
    stop = _FlipsAfter(5 if Ranks().rank == 1 else 0)
    try:
        train(config, progress=lambda name, *, num_steps: SilentProgress(), stop=stop)
    except ReplicaError as error:
        return f"{HERE.step}: {error}"
    return "done"


class _FlipsAfter(StopFlag):
    """Looks like a stop flag, and flips a bit of the net when so many steps are made."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._flip_step = step
        HERE.step = 0

    @property  # type: ignore[override]
    def received(self) -> Any:
        if self._flip_step and HERE.step >= self._flip_step:
            self._flip_step = 0
            found = [each for each in gc.get_objects() if type(each) is Classification]
            weight = next(found[0].net.parameters())
            weight.data.view(torch.int32).view(-1)[0] ^= 1 << 20
        return None

    @received.setter
    def received(self, value: Any) -> None:
        pass


def test_a_net_that_drifts_ends_the_run_before_it_is_saved(tmp_path: Path) -> None:
    found = on_ranks(flip_in_training, 3, tmp_path)
    assert len(set(found)) == 1
    assert found[0].startswith("6: rank 1 of 3 has another backbone."), found
    assert newest(tmp_path / "run" / "checkpoints").name == "step-00000004"  # type: ignore[union-attr]


def pass_that_rank_0_leaves_out(done: Path) -> list[int]:
    copies = Copies(nn.Linear(4, 2), Ranks())
    copies.connect()
    if Ranks().rank == 0:
        wait_for_file(done, 5)
        return []
    try:
        return list(copies(torch.ones(3, 4)).shape)
    finally:
        done.touch()


def test_a_pass_forward_waits_for_nobody(tmp_path: Path) -> None:
    """Else a rank that died before its first step would be met where no collective is expected."""
    assert on_ranks(pass_that_rank_0_leaves_out, 2, tmp_path / "done") == [[], [3, 2]]


def pool_steps() -> tuple[list[float], list[torch.Tensor]]:
    return _pool_steps(Ranks())


def _pool_steps(ranks: Ranks) -> tuple[list[float], list[torch.Tensor]]:
    """F2C by DDP and the dual loader: losses and gradient norms, probe and gallery net."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.Tanh(), nn.Linear(8, 6))
    pool = DynamicClassPool(
        9, 6, margin=CosFace(0.3), scale=8.0, features=2, dtype=torch.float64, ranks=ranks
    )
    f2c = F2C(net.double(), pool, num_identities=20, decay=0.8)
    method = _PoolInDoubles(
        f2c,
        torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9),
        learning_rate=0.1,
        device=torch.device("cpu"),
        clip_norm=0.5,
        ranks=ranks,
    )
    loader = DualLoader(
        SyntheticFaces(**FACES),
        batch_size=14,
        seed=3,
        augmentation=Augmentation(shift=2),
        identity_share=0.6,
        make_planner=f2c.planner,
        rank=ranks.rank,
        num_ranks=ranks.size,
    )
    numbers, guard = [], FiniteGuard(method.device)
    for step, batch in enumerate(loader.batches(0, 4)):
        done = train_step(method, [batch], step=step, factor=1.0, seed=0, guard=guard, ranks=ranks)
        numbers += [float(done.loss), float(done.grad_norm)]
    nets = [*net.parameters(), *f2c.gallery_net.parameters()]
    return numbers, [p.detach().clone() for p in nets]


class _PoolInDoubles(PoolTraining):
    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss(replace(batch, images=batch.images.double()))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_steps_of_f2c_are_those_of_one_process(num_ranks: int) -> None:
    expected, weights = _pool_steps(ALONE)
    for numbers, found in on_ranks(pool_steps, num_ranks):
        assert numbers == pytest.approx(expected, rel=1e-10)
        for mine, theirs in zip(found, weights, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


# --- runs -----------------------------------------------------------------------------------------


def run(
    folder: Path, overrides: list[str], stop_after: int = 0, recipe: str = "", **options: Any
) -> str:
    """Train on this rank; how it ended. `stop_after`: the last rank is told to stop then."""
    config = parse_config(recipe, [f"run.directory={folder}", *SETTINGS, *overrides])
    ranks = Ranks()
    stop = _StopsAfter(stop_after if ranks.rank == ranks.size - 1 else 0)
    try:
        train(config, progress=lambda name, *, num_steps: SilentProgress(), stop=stop, **options)
    except ManyfaceError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


class _StopsAfter(StopFlag):
    """Asks for a stop when so many steps are made."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step
        HERE.step = 0

    @property  # type: ignore[override]
    def received(self) -> Any:
        if self._step and HERE.step >= self._step:
            self._asked = 15
        return self._asked

    @received.setter
    def received(self, value: Any) -> None:
        self._asked = value


def stopped_on_rank_1(folder: Path, overrides: list[str], **options: Any) -> str:
    """By a signal that comes while the run is scored, or before anything else if it never is."""
    config = parse_config("", [f"run.directory={folder}", *SETTINGS, *overrides])
    stop, evaluate, ask = StopFlag(), Validation.__call__, Ranks().rank == 1

    def scored(self: Validation, step: int) -> float | None:
        found = evaluate(self, step)
        if ask:
            stop.request()
        return found

    Validation.__call__ = scored  # type: ignore[method-assign]
    if ask and not options:
        stop.request()
    try:
        train(config, progress=lambda name, *, num_steps: SilentProgress(), stop=stop, **options)
    except ManyfaceError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def test_a_stop_of_one_rank_while_the_pool_is_filled_stops_all(tmp_path: Path) -> None:
    found = on_ranks(stopped_on_rank_1, 2, tmp_path, FLAVOURS["f2c-prefilled"])
    assert all(text.startswith("Interrupted: stopped by SIGTERM: nothing") for text in found), found


def test_a_stop_of_one_rank_while_a_finished_run_is_scored_again_stops_all(tmp_path: Path) -> None:
    assert on_ranks(run, 2, tmp_path, []) == ["done"] * 2
    result = tmp_path / "run" / "result.json"
    before = result.read_bytes()
    found = on_ranks(partial(stopped_on_rank_1, resume=True), 2, tmp_path, [])
    assert all(text.startswith("Interrupted: stopped by SIGTERM: saved") for text in found), found
    assert result.read_bytes() == before


# The others are among the slow tests.
QUICK, MORE = ("full", "partial", "f2c"), ("adamw", "hard", "f2c")


def losses(folder: Path) -> list[str]:
    events = read_events(folder / "run" / "events.jsonl")
    return [e["loss"].hex() for e in events if e["kind"] == "step"]


def end(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint, whole."""
    checkpoint = load(newest(folder / "run" / "checkpoints"))
    found = {}
    for group in checkpoint.tensors:
        for name, value in checkpoint.group(group).items():
            whole = value if isinstance(value, torch.Tensor) else value.rows(0, value.shape[0])
            found[f"{group}: {name}"] = whole
    return found


@pytest.mark.parametrize(
    ("flavour", "size"),
    [
        *(pytest.param(each, 2, marks=[] if each in QUICK else pytest.mark.slow)
          for each in FLAVOURS),
        ("partial", 3),
        pytest.param("lazy", 4, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, flavour: str, size: int) -> None:
    """From three ranks on the order of a sum shows in its last bits."""
    overrides, whole, parts = FLAVOURS[flavour], tmp_path / "whole", tmp_path / "parts"
    assert on_ranks(run, size, whole, overrides) == ["done"] * size
    stopped = on_ranks(run, size, parts, overrides, 4)
    assert all("stopped by SIGTERM: saved" in text for text in stopped), stopped
    assert newest(parts / "run" / "checkpoints").name == "step-00000004"  # type: ignore[union-attr]
    assert on_ranks(resume, size, parts, overrides) == ["done"] * size
    assert losses(whole) == losses(parts)
    assert len(losses(whole)) == 8
    one, other = end(whole), end(parts)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.slow
def test_a_stop_after_any_step_changes_nothing(tmp_path: Path) -> None:
    size = 2
    whole = tmp_path / "whole"
    assert on_ranks(run, size, whole, FLAVOURS["lazy"]) == ["done"] * size
    one = end(whole)
    for step in range(1, 8):
        parts = tmp_path / f"after-{step}"
        stopped = on_ranks(run, size, parts, FLAVOURS["lazy"], step)
        assert all("stopped by SIGTERM: saved" in text for text in stopped), stopped
        assert on_ranks(resume, size, parts, FLAVOURS["lazy"]) == ["done"] * size
        assert losses(whole) == losses(parts)
        other = end(parts)
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def resume(folder: Path, overrides: list[str]) -> str:
    return run(folder, overrides, resume=True)


def resume_or_start(folder: Path, overrides: list[str], stop_after: int = 0) -> str:
    return run(folder, overrides, stop_after, resume="if-there")


@pytest.mark.parametrize(
    "flavour", ["lazy", *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)]
)
def test_a_run_goes_on_with_other_numbers_of_ranks(tmp_path: Path, flavour: str) -> None:
    overrides = FLAVOURS[flavour]
    for size, stop in ((3, 2), (1, 4), (4, 6), (2, 0)):
        found = on_ranks(resume_or_start, size, tmp_path, overrides, stop)
        if stop:
            assert all("stopped by SIGTERM: saved" in text for text in found), found
            before = end(tmp_path)
            load_on = on_ranks(rows_after_loading, 3, tmp_path, overrides)
            assert load_on[0]
            for name in load_on[0]:
                rows = torch.cat([rank[name] for rank in load_on])
                assert torch.equal(rows, before[name.replace(".", ": ", 1)]), name
        else:
            assert found == ["done"] * size
    assert len(losses(tmp_path)) == 8


def rows_after_loading(folder: Path, overrides: list[str]) -> dict[str, torch.Tensor]:
    """This rank's rows of a run that is loaded."""
    from manyface.train.build import build_training
    from manyface.train.state import resume_state, tensors_of

    config = parse_config("", [f"run.directory={folder}", *SETTINGS, *overrides])
    training = build_training(config, warn=lambda text: None)
    resume_state(folder / "run" / "checkpoints", training.method)
    found = tensors_of(training.method)
    return {name: each.values.clone() for name, each in found.items() if isinstance(each, RowShard)}


def test_more_ranks_than_images_and_other_mistakes_are_said_on_all(tmp_path: Path) -> None:
    found = on_ranks(run, 3, tmp_path, ["head.method=f2c", "train.batch_size=10"])
    assert all("set it to 12 or more" in text for text in found)
    found = on_ranks(run, 3, tmp_path, ["train.batch_size=5"])
    assert all("train.batch_size is 5 images of all 3 ranks together" in text for text in found)
    assert not (tmp_path / "run" / "config.toml").exists()
    assert on_ranks(run, 2, tmp_path, ["schedule.steps=2"]) == ["done"] * 2
    found = on_ranks(run, 2, tmp_path, ["schedule.steps=2"])
    assert all("holds a run already" in text for text in found)

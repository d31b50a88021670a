"""R9, R15: numbers that are not finite, and clocks that jump, on one rank."""

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import on_ranks
from test_training import SETTINGS, end, losses
from torch import Tensor

from manyface.base.errors import ManyfaceError
from manyface.checkpoint import newest
from manyface.config import parse_config
from manyface.observe import read_events
from manyface.observe.progress import SilentProgress
from manyface.parallel import Ranks
from manyface.train import loop, train

STEP, SICK = 5, 1  # before update number 6, on rank 1 of 3


def in_an_embedding(method: Any, bad: float) -> None:
    def spoil(net: Any, images: Any, embeddings: Tensor) -> Tensor:
        return torch.cat([torch.full_like(embeddings[:1], bad), embeddings[1:]])

    method.net.register_forward_hook(spoil)


def in_a_center(method: Any, bad: float) -> None:
    method.head.centers.weight[0, 0] = bad


def in_the_head_gradient(method: Any, bad: float) -> None:
    def watch(net: Any, images: Any, embeddings: Tensor) -> None:
        embeddings.register_hook(lambda gradient: gradient * bad)

    method.net.register_forward_hook(watch)


def in_a_net_gradient(method: Any, bad: float) -> None:
    next(method.net.parameters()).register_hook(lambda gradient: gradient * bad)


PLACES: dict[str, Callable[[Any, float], None]] = {
    "embedding": in_an_embedding,
    "center": in_a_center,
    "head gradient": in_the_head_gradient,
    "net gradient": in_a_net_gradient,
}


def sick_run(folder: Path, place: str, bad: float, precision: str) -> str:
    """How a run ends whose rank 1 meets a bad number in its sixth step."""
    make_step = loop.train_step

    def new_step(method: Any, *arguments: Any, **settings: Any) -> Any:
        if settings["step"] == STEP and Ranks().rank == SICK:
            PLACES[place](method, bad)
        return make_step(method, *arguments, **settings)

    loop.train_step = new_step
    return quiet_run(folder, "train.checkpoint_every=2", f"run.precision={precision}")


def quiet_run(folder: Path, *more: str) -> str:
    config = parse_config("", [f"run.directory={folder}", *SETTINGS, *more])
    try:
        train(config, progress=lambda name, *, num_steps: SilentProgress())
    except ManyfaceError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


@pytest.mark.parametrize(
    "bad, precision",
    [
        (math.nan, "fp32"),
        pytest.param(math.inf, "fp32", marks=pytest.mark.slow),
        pytest.param(math.nan, "bf16", marks=pytest.mark.slow),
        (math.inf, "bf16"),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_all_ranks_stop_at_the_step_of_a_bad_number(
    tmp_path: Path, place: str, bad: float, precision: str
) -> None:
    found = on_ranks(sick_run, 3, tmp_path, place, bad, precision)
    assert len(set(found)) == 1, found
    assert found[0].startswith("NonFiniteError: training stopped"), found
    assert f"at step {STEP + 1}" in found[0]
    kept = newest(tmp_path / "run" / "checkpoints")
    assert kept is not None
    assert kept.name == "step-00000004"
    assert str(kept) in found[0]
    for name, value in end(tmp_path).items():
        assert not value.is_floating_point() or bool(value.isfinite().all()), name


def run_with_clock(folder: Path, rank_of_clock: int) -> str:
    """The wall clock of one rank, -1 for none, jumps by an hour to and fro with each look."""
    real, jumps = time.time, itertools.cycle((3600, -3600, 0))
    if Ranks().rank == rank_of_clock:
        time.time = lambda: real() + next(jumps)
    return quiet_run(folder, "train.checkpoint_minutes=10")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path, rank: int) -> None:
    still, jumping = tmp_path / "still", tmp_path / "jumping"
    assert on_ranks(run_with_clock, 2, still, -1) == ["done"] * 2
    assert on_ranks(run_with_clock, 2, jumping, rank) == ["done"] * 2
    assert losses(still) == losses(jumping)
    assert saves(still) == saves(jumping) == [3, 4, 6, 8]
    assert times(jumping) == sorted(times(jumping))
    assert 0 <= times(jumping)[0] <= times(jumping)[-1] < 600
    one, other = end(still), end(jumping)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def saves(folder: Path) -> list[int]:
    return [e["step"] for e in read_events(folder / "run" / "events.jsonl") if "path" in e]


def times(folder: Path) -> list[float]:
    return [e["seconds"] for e in read_events(folder / "run" / "events.jsonl")]

"""Every method steps, and says before what it will take."""

import numpy as np
import pytest
import torch

from manyface.base.errors import ConfigError
from manyface.bench import METHODS, Job, Shape, methods_here
from manyface.bench.centers import build_full
from manyface.bench.measure import measure
from manyface.bench.pool import PoolRun
from manyface.bench.rivals import build_eager

SMALL = Shape(classes=300, batch=8, dim=16, steps=2, chunk_size=64)


@pytest.mark.parametrize("name", methods_here(SMALL))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_has_its_figures(name: str, dtype: str) -> None:
    told: list[str] = []
    shape = Shape(classes=300, batch=8, dim=16, steps=2, chunk_size=64, dtype=dtype)
    found = measure(name, shape, report=told.append)
    assert told == ["building", "warming up", "step 1 of 2", "step 2 of 2"]
    seconds = found["step_seconds"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
    assert found["resident_bytes"] > 0
    assert found["page_cache_bytes"] > 0
    assert ("plan_seconds" in found) == (name == "f2c")


def test_eager_and_full_make_the_same_step() -> None:
    shape = Shape(classes=300, batch=8, dim=16, chunk_size=64, dtype="float64")
    full, eager = build_full(shape), build_eager(shape)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 5, 299])
    for _ in range(2):
        full.step(labels)
        eager.step(labels)
    torch.testing.assert_close(full._head.centers.weight, eager._rows.detach())
    torch.testing.assert_close(full._embeddings.grad, eager._embeddings.grad)


def test_the_pool_scores_each_image_once_in_two_passes() -> None:
    run = PoolRun(Shape(classes=300, batch=8, dim=16, pool_ratio=0.1))
    before = run._pool.slot_rows.clone()
    run.plan(torch.arange(100, 108))
    run.step(torch.arange(100, 108))
    assert all(probe.grad is not None for probe in run._probes)
    changed = (run._pool.slot_rows != before).any(dim=2).sum()
    assert int(changed) == 4  # the second pass's gallery stays, the first one's was taken back
    found = run.figures()
    assert (found["passes"], found["probes_per_pass"]) == (2, 4)
    assert 0.5 <= found["share_inside"] < 1  # the pairs at least
    assert found["products"] == pytest.approx(1 + found["share_inside"])


def test_the_pool_is_full_before_the_first_step() -> None:
    run = PoolRun(SMALL)
    run.plan(torch.arange(8))
    assert all(each.num_filled == SMALL.slots == 30 for each in run._plan.passes)
    assert len(np.unique(run._ledger.state().identities)) == 30


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("full", 1000),
        ("partial", 250),
        ("f2c", 20),
        ("eager", 1000),
        ("linear_cross_entropy", 1000),
        ("partial_fc_2020", 250),
        ("arcface_torch", 250),
    ],
)
def test_active_rows(name: str, rows: int) -> None:
    shape = Shape(classes=1000, sample_rate=0.25, pool_ratio=0.02)
    assert METHODS[name].active_rows(shape) == rows


def test_needs_of_ten_million_classes() -> None:
    shape = Shape(classes=10_000_000, batch=128, dim=512)
    table = 2 * 10_000_000 * 512 * 4
    for name in ("full", "partial"):
        assert table < METHODS[name].needs(shape).total < 1.03 * table
    for name in ("eager", "linear_cross_entropy"):
        assert 2.5 * table < METHODS[name].needs(shape).total < 2.6 * table
    assert 2 * table < METHODS["arcface_torch"].needs(shape).total < 2.1 * table
    assert 1.2 * table < METHODS["partial_fc_2020"].needs(shape).total < 1.3 * table
    assert METHODS["f2c"].needs(shape).total < 0.12 * table
    assert METHODS["full"].needs(shape).held == table


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": 0},
        {"batch": -1},
        {"steps": 0},
        {"threads": 0},
        {"chunk_size": 0},
        {"sample_rate": 0.0},
        {"sample_rate": 1.5},
        {"pool_ratio": float("nan")},
        {"dtype": "float16"},
    ],
)
def test_shapes_that_no_step_has(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        Shape(**wrong)


def test_what_a_method_cannot_do_is_said_before_it_runs() -> None:
    with pytest.raises(ConfigError, match="batch must be even, got 7"):
        Job("f2c", "f2c", Shape(batch=7))
    with pytest.raises(ConfigError, match="more identities than f2c's pool has slots"):
        Job("f2c", "f2c", Shape(classes=100, batch=32, pool_ratio=0.1))
    with pytest.raises(ConfigError, match="unknown method 'ful'; expected one of full, partial"):
        Job("ful", "ful", Shape())
    assert Job("full", "full", Shape(batch=7)).name == "full"

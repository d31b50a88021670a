"""Intervals of differences: people, and the spread over seeds."""

import math

import numpy as np
import pytest

from manyface.studies.differences import Difference, SeedNoise


def test_the_spread_is_pooled_over_cells() -> None:
    noise = SeedNoise.of([[0.70, 0.72], [0.5, 0.5, 0.56], [0.9], []])
    squares = 2 * 1.0**2 + 2 * 2.0**2 + 4.0**2  # from means 71 and 52, points
    assert noise is not None
    assert noise.freedom == 3
    assert noise.deviation == pytest.approx(math.sqrt(squares / 3))


@pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.303), (4, 2.776), (14, 2.145)])
def test_it_reaches_as_student_has_it(freedom: int, quantile: float) -> None:
    assert SeedNoise(1.0, freedom).reach(3) == pytest.approx(quantile * math.sqrt(2 / 3), rel=0.02)


def test_one_seed_tells_no_spread() -> None:
    assert SeedNoise.of([[0.7], [0.8]]) is None


def test_independent_causes_add_as_squares() -> None:
    found = Difference(1.0, -2.0, 5.0).widened(4.0)
    assert (found.value, found.low) == (1.0, pytest.approx(-4.0))
    assert found.high == pytest.approx(1 + math.hypot(4, 4))


def test_an_interval_holds_a_true_difference_of_nothing_19_times_of_20() -> None:
    """Ten cells that do not differ, three seeds each."""
    rng, inside, tries = np.random.default_rng(1), 0, 400
    for _ in range(tries):
        runs = 0.7 + 0.01 * rng.standard_normal((10, 3))
        noise = SeedNoise.of(runs.tolist())
        assert noise is not None
        value = 100 * float(runs[1].mean() - runs[0].mean())
        inside += abs(value) <= noise.reach(3)
    assert 0.92 <= inside / tries <= 0.98

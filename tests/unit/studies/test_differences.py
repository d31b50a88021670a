"""Intervals of differences: people, and the spread over seeds."""

import math

import numpy as np
import pytest

from manyface.studies.differences import Difference, SeedNoise


def test_the_spread_is_pooled_over_cells() -> None:
    noise = SeedNoise.of([[70.0, 72.0], [50.0, 50.0, 56.0], [90.0], []])
    squares = 2 * 1.0**2 + 2 * 2.0**2 + 4.0**2  # from means 71 and 52
    assert noise is not None
    assert noise.deviation == pytest.approx(math.sqrt(squares / 3))


@pytest.mark.parametrize(
    ("own", "quantile", "deviation"),
    [
        ([5.0], 3.182, 1.0),  # three degrees of freedom, all of the other cells
        ([5.0, 5.0, 5.0], 2.571, math.sqrt(3 / 5)),
        ([3.0, 5.0, 7.0], 2.571, math.sqrt((3 + 8) / 5)),
    ],
)
def test_a_cells_own_spread_counts_beside_that_of_all(
    own: list[float], quantile: float, deviation: float
) -> None:
    expected = quantile * deviation / math.sqrt(len(own))
    assert SeedNoise(1.0).reach(own) == pytest.approx(expected, rel=0.02)


def test_one_seed_tells_no_spread() -> None:
    assert SeedNoise.of([[0.7], [0.8]]) is None


def test_independent_causes_add_as_squares() -> None:
    found = Difference(1.0, -2.0, 5.0).widened(4.0)
    assert (found.value, found.low) == (1.0, pytest.approx(-4.0))
    assert found.high == pytest.approx(1 + math.hypot(4, 4))


@pytest.mark.parametrize(("unlike", "least", "most"), [(1.0, 0.94, 0.98), (2.0, 0.85, 0.91)])
def test_how_often_an_interval_holds_a_true_difference_of_nothing(
    unlike: float, least: float, most: float
) -> None:
    """Ten cells that do not differ, three seeds that move all of them, and one cell whose
    difference from the baseline spreads more than the others'."""
    rng, inside, tries = np.random.default_rng(1), 0, 2000
    for _ in range(tries):
        runs = 70 + rng.standard_normal((10, 3)) + 2 * rng.standard_normal(3)
        differences = runs[1:] - runs[0]
        differences[0] *= unlike
        noise = SeedNoise.of(differences.tolist())
        assert noise is not None
        own = differences[0].tolist()
        inside += abs(sum(own) / 3) <= noise.reach(own)
    assert least <= inside / tries <= most

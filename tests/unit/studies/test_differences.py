"""Intervals of differences: people, and the spread over seeds."""

import math

import numpy as np
import pytest

from manyface.studies.differences import Difference, SeedNoise


@pytest.mark.parametrize(
    ("own", "others", "quantile", "variance"),
    [
        ([5.0], [[1.0, 3.0]] * 4, 3.182, 2 / 0.4705),  # three degrees of freedom, all of others
        ([5.0], [[1.0, 3.0]], 12.706, 2 / 0.4705),  # one: no more than there are
        ([5.0, 5.0, 5.0], [[1.0, 3.0]] * 4, 2.571, 3 * 2 / 0.4705 / 5),
        ([3.0, 5.0, 7.0], [[1.0, 2.0, 3.0]] * 4, 2.571, (3 / 0.7023 + 8) / 5),
        ([3.0, 5.0, 7.0], [[1.0, 2.0, 3.0]] * 4 + [[0.0, 50.0, 90.0]], 2.571, (3 / 0.7023 + 8) / 5),
        ([3.0, 5.0, 7.0], [], 4.303, 4.0),  # Student's own
        ([3.0, 5.0, 7.0], [[0.0, 50.0, 90.0]], 4.303, 4.0),
    ],
)
def test_a_cells_own_spread_counts_beside_that_of_the_others(
    own: list[float], others: list[list[float]], quantile: float, variance: float
) -> None:
    noise = SeedNoise.of([own, *others])
    assert noise is not None
    expected = quantile * math.sqrt(variance / len(own))
    assert noise.reach(own) == pytest.approx(expected, rel=0.03)


def test_one_seed_tells_no_spread() -> None:
    assert SeedNoise.of([[0.7], [0.8]]) is None


def test_independent_causes_add_as_squares() -> None:
    found = Difference(1.0, -2.0, 5.0).widened(4.0)
    assert (found.value, found.low) == (1.0, pytest.approx(-4.0))
    assert found.high == pytest.approx(1 + math.hypot(4, 4))


@pytest.mark.parametrize(
    ("cells", "seeds", "unlike", "least", "most"),
    [
        (2, 3, 1.0, 0.93, 0.97),
        (2, 2, 1.0, 0.93, 0.97),
        (3, 3, 1.0, 0.94, 0.98),
        (10, 3, 1.0, 0.95, 0.985),
        (10, 3, 2.0, 0.85, 0.91),
    ],
)
def test_how_often_an_interval_holds_a_true_difference_of_nothing(
    cells: int, seeds: int, unlike: float, least: float, most: float
) -> None:
    """Cells that do not differ, seeds that move all of them, and one cell whose difference from
    the baseline spreads more than the others'."""
    rng, inside, tries = np.random.default_rng(1), 0, 2000
    for _ in range(tries):
        runs = 70 + rng.standard_normal((cells, seeds)) + 2 * rng.standard_normal(seeds)
        differences = runs[1:] - runs[0]
        differences[0] *= unlike
        noise = SeedNoise.of(differences.tolist())
        assert noise is not None
        own = differences[0].tolist()
        inside += abs(sum(own) / seeds) <= noise.reach(own)
    assert least <= inside / tries <= most

"""Bootstrap intervals: their width against theory, pairing, and determinism."""

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.evaluate import Resampler, accuracy_difference
from manyface.evaluate.bootstrap import (
    accuracy_weights,
    bootstrap_intervals,
    weighted_share,
    wilson_interval,
)


def resampler(count: int, people: int, **options: object) -> Resampler:
    """`count` pairs, half same, among `people` people."""
    rng = numpy_generator(0, "resampler", count, people)
    left = rng.integers(people, size=count)
    same = np.arange(count) % 2 == 0
    right = np.where(same, left, (left + rng.integers(1, people, size=count)) % people)
    return Resampler(same, left, right, **options)  # type: ignore[arg-type]


def width_of_mean(values: np.ndarray, source: Resampler) -> float:
    def mean(weights: np.ndarray) -> np.ndarray:
        return np.array([(weights @ values) / weights.sum()])

    low, high = bootstrap_intervals(source, mean)
    return float(high[0] - low[0])


def test_pair_bootstrap_has_the_width_of_the_standard_error() -> None:
    values = numpy_generator(0, "values").normal(size=1000)
    width = width_of_mean(values, resampler(1000, 500, unit="pairs", resamples=2000))
    assert width == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)


def test_identity_bootstrap_sees_that_a_persons_pairs_are_alike() -> None:
    """Each of 50 people is in 40 same pairs with one value: 50 observations, not 2,000."""
    left = np.repeat(np.arange(50), 40)
    values = numpy_generator(0, "people").normal(size=50)[left]
    same = np.ones(2000, dtype=bool)
    same[-1] = False
    by_pairs, by_people = (
        width_of_mean(values, Resampler(same, left, left, unit, 1000))
        for unit in ("pairs", "identities")
    )
    assert by_pairs == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.25)
    assert by_people == pytest.approx(2 * 1.96 / np.sqrt(50), rel=0.25)


def test_weights_keep_the_number_of_each_kind_and_repeat() -> None:
    source = resampler(100, 30, unit="pairs", resamples=3)
    for weights, again in zip(source.weights(), source.weights(), strict=True):
        np.testing.assert_array_equal(weights, again)
        assert weights[source.same].sum() == weights[~source.same].sum() == 50


def test_identity_weights_are_products_of_the_times_people_were_drawn() -> None:
    left, right = np.array([7, 7, 9]), np.array([7, 9, 9])
    same = left == right
    for a, across, b in Resampler(same, left, right, "identities", 20).weights():
        assert across == a * b
        assert a + b == 2  # two people, two draws


def test_accuracy_weights_give_the_mean_over_folds() -> None:
    fold = np.array([0, 0, 0, 1])
    correct = np.array([True, False, False, True])
    weights = accuracy_weights(fold)
    assert weights.sum() == pytest.approx(1)
    assert weighted_share(correct, weights) == pytest.approx((1 / 3 + 1) / 2)


def test_paired_difference_is_narrower_than_two_separate_intervals() -> None:
    rng = numpy_generator(0, "paired")
    first = rng.random(1000) < 0.9
    second = np.where(rng.random(1000) < 0.05, ~first, first)
    fold = np.arange(1000) % 10
    source = resampler(1000, 2000, unit="pairs")
    found = accuracy_difference(first, second, fold, source)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.low < found.value < found.high
    widths = [width_of_mean(correct.astype(float), source) for correct in (first, second)]
    assert found.high - found.low < 0.6 * np.hypot(*widths)
    reverse = accuracy_difference(second, first, fold, source)
    assert (reverse.value, reverse.low) == pytest.approx((-found.value, -found.high))


def test_a_model_does_not_differ_from_itself() -> None:
    correct = np.arange(100) % 7 > 0
    found = accuracy_difference(correct, correct, np.arange(100) % 10, resampler(100, 30))
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("share, count", [(0.5, 10), (0.9, 200), (1.0, 50), (0.0, 50)])
def test_wilson_interval_solves_its_equation(share: float, count: int) -> None:
    """Its ends are the shares p at distance 1.96 sqrt(p (1 - p) / n) from the observed one."""
    for end in wilson_interval(share, count):
        distance = 1.959964 * np.sqrt(end * (1 - end) / count)
        assert abs(end - share) == pytest.approx(distance, abs=1e-6)


def test_unusable_requests_are_said() -> None:
    with pytest.raises(DataError, match="'identities' or 'pairs'"):
        resampler(10, 5, unit="images")
    with pytest.raises(DataError, match="the same pairs"):
        accuracy_difference(np.ones(3, bool), np.ones(4, bool), np.zeros(4), resampler(4, 9))
    only_same = Resampler(np.ones(4, bool), np.arange(4), np.arange(4))
    with pytest.raises(DataError, match="too few pairs"):
        bootstrap_intervals(only_same, lambda weights: weights)

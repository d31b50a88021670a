"""Confidence intervals of verification metrics by the bootstrap, over pairs or over identities.

Pairs that share a person are not independent: one hard face spoils all its pairs. Resampling pairs
ignores this. Resampling *identities* does not: each person is drawn w times (0, 1, 2 ...), a same
pair counts w times and a different pair w_left * w_right times (the vertex bootstrap of Snijders
and Borgatti 1999). Where people appear in many pairs that is the right width; where each appears
in one pair only, the product gives different pairs three times their variance: it errs towards
intervals that are too wide.

Percentile intervals. A resample without any pair of one kind says nothing and is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.evaluate.metrics import BoolArray, FloatArray, IntArray

Unit = Literal["identities", "pairs"]
Statistic = Callable[[FloatArray], FloatArray]  # weights of the pairs [P] -> values [K]

# Two-sided 95 % point of the normal distribution, for Wilson's interval.
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Resampler:
    """Draws the pairs' weights; the same (seed, pairs) give the same draws for every model."""

    same: BoolArray  # [P]
    left_identity: IntArray  # [P]
    right_identity: IntArray  # [P]
    unit: Unit = "identities"
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.unit not in ("identities", "pairs") or self.resamples < 1:
            raise DataError(
                "the bootstrap resamples 'identities' or 'pairs' at least once, "
                f"got {self.unit!r} and {self.resamples} resamples"
            )

    def weights(self) -> Iterator[FloatArray]:
        """`resamples` vectors [P]: how often each pair counts in each resample."""
        generator = numpy_generator(self.seed, "bootstrap", self.unit)
        return (
            self._by_identity(generator) if self.unit == "identities" else self._by_pair(generator)
        )

    def _by_pair(self, generator: np.random.Generator) -> Iterator[FloatArray]:
        """Same and different pairs are resampled apart: their numbers are the protocol's choice."""
        kinds = [np.flatnonzero(self.same == kind) for kind in (True, False)]
        for _ in range(self.resamples):
            weights = np.zeros(len(self.same))
            for members in kinds:
                weights[members] = times_drawn(generator, len(members))
            yield weights

    def _by_identity(self, generator: np.random.Generator) -> Iterator[FloatArray]:
        both = np.concatenate([self.left_identity, self.right_identity])
        people, place = np.unique(both, return_inverse=True)
        left, right = np.split(place.reshape(-1), 2)  # each [P], positions in `people`
        for _ in range(self.resamples):
            times = times_drawn(generator, len(people))
            of_left = times[left]
            yield np.where(self.same, of_left, of_left * times[right])


def bootstrap_intervals(
    resampler: Resampler, statistic: Statistic, *, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends [K] of the percentile interval of each value of `statistic`."""
    rows = [
        statistic(weights)
        for weights in resampler.weights()
        if weights[resampler.same].sum() > 0 and weights[~resampler.same].sum() > 0
    ]
    if not rows:
        raise DataError("too few pairs to resample: add pairs or people to the evaluation")
    tail = (1.0 - level) / 2
    low, high = np.quantile(np.stack(rows), [tail, 1.0 - tail], axis=0)  # each [K]
    return low, high


def accuracy_weights(fold: IntArray) -> FloatArray:
    """[P] weights under which the share of correct pairs is the mean over folds; they sum to 1."""
    folds, index, sizes = np.unique(fold, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(folds) * sizes[index]), dtype=np.float64)


def weighted_share(correct: BoolArray, weights: FloatArray) -> float:
    """Share of `weights` that lies on correct pairs."""
    return float(weights[correct].sum() / weights.sum())


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent trials.

    The bootstrap of 0 errors is a point; this is what stands in for it.
    """
    centre = (share + _Z95**2 / (2 * count)) / (1 + _Z95**2 / count)
    spread = np.sqrt(share * (1 - share) / count + _Z95**2 / (4 * count**2))
    half = _Z95 / (1 + _Z95**2 / count) * spread
    # It holds the share itself, but for rounding.
    return max(0.0, min(share, float(centre - half))), min(1.0, max(share, float(centre + half)))


def share_intervals(
    hits: BoolArray, people: IntArray, *, resamples: int, seed: int = 0
) -> list[tuple[float | None, float | None]]:
    """95 % interval of the share of hits in each row of `hits` [K, N], trial i being of person
    people[i] (numbers from 0): people are drawn with replacement, all their trials with them."""
    if not resamples or not hits.shape[1]:
        return [(None, None)] * len(hits)
    trials = np.bincount(people)  # [people]
    of_person = np.stack([np.bincount(people, weights=row, minlength=len(trials)) for row in hits])
    here = np.flatnonzero(trials)
    generator = numpy_generator(seed, "bootstrap", "shares")
    times = np.stack([times_drawn(generator, len(here)) for _ in range(resamples)])  # [R, people]
    shares = (times @ of_person[:, here].T) / (times @ trials[here])[:, None]  # [R, K]
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    return [
        (float(a), float(b)) if a < b else wilson_interval(float(row.mean()), len(row))
        for a, b, row in zip(low, high, hits, strict=True)
    ]


@dataclass(frozen=True)
class Difference:
    """Accuracy of one model less that of another on the same pairs, with its 95 % interval."""

    value: float
    low: float
    high: float


def accuracy_difference(
    correct: BoolArray, other_correct: BoolArray, fold: IntArray, resampler: Resampler
) -> Difference:
    """Paired bootstrap of the difference in mean fold accuracy: each resample holds the same pairs
    for both models, so what both find easy or hard cancels. Thresholds stay as the folds chose."""
    if not correct.shape == other_correct.shape == fold.shape == resampler.same.shape:
        raise DataError(
            "a paired comparison needs two models on the same pairs, "
            f"got {len(correct)} and {len(other_correct)} pairs"
        )
    gain = correct.astype(np.float64) - other_correct.astype(np.float64)  # [P] -1, 0 or 1
    per_pair = accuracy_weights(fold)

    def statistic(weights: FloatArray) -> FloatArray:
        counted = weights * per_pair
        return np.array([(counted @ gain) / counted.sum()])

    low, high = bootstrap_intervals(resampler, statistic)
    return Difference(value=float(per_pair @ gain), low=float(low[0]), high=float(high[0]))


def times_drawn(generator: np.random.Generator, count: int) -> FloatArray:
    """How often each of `count` things comes up in `count` draws with replacement."""
    if count == 0:
        return np.zeros(0)
    draws = generator.integers(count, size=count)
    return np.bincount(draws, minlength=count).astype(np.float64)

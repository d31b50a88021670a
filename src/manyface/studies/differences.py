"""What a cell gains or loses against another: on equal pairs, in the light of people and seeds."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import numpy.typing as npt

from manyface.evaluate import Resampler, accuracy_difference, accuracy_weights
from manyface.evaluate.pairs import PairSet

Gain = npt.NDArray[np.float64]  # [P] of two runs: 1 where only the first decides a pair rightly
_DRAWS = 200_000  # of Student's t: its quantile to one or two in a hundred
_PRIOR = 3  # most degrees of freedom that other cells have in a cell's spread


@dataclass(frozen=True)
class Difference:
    """Points of accuracy, a mean over seeds, with its 95 % interval."""

    value: float
    low: float
    high: float

    def widened(self, by: float) -> Self:
        """With the interval of another, independent cause, which reaches `by` to both sides."""
        low = self.value - math.hypot(self.value - self.low, by)
        return type(self)(self.value, low, self.value + math.hypot(self.high - self.value, by))


def over_seeds(values: Sequence[float]) -> Difference:
    """The mean of differences at some seeds, points, in the light of these alone."""
    mean, freedom = float(np.mean(values)), len(values) - 1
    if freedom == 0:
        return Difference(mean, -math.inf, math.inf)
    reach = _student(freedom) * math.sqrt(_squares(values) / freedom / len(values))
    return Difference(mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class OnPairs:
    """The folds of a table's pairs, and their people drawn again: the same for all its lines."""

    fold: npt.NDArray[np.int64]
    resampler: Resampler

    @classmethod
    def of(cls, pairs: PairSet) -> Self:
        """Of these pairs."""
        return cls(pairs.fold, Resampler(pairs.same, *pairs.identities()))

    def points(self, gain: Gain) -> float:
        """The gain in accuracy, points."""
        return float(100 * accuracy_weights(self.fold) @ gain)

    def difference(self, gains: Sequence[Gain]) -> Difference:
        """Accuracy gained, of the mean over seeds, people resampled."""
        mean = np.mean(gains, axis=0)
        found = accuracy_difference(mean, np.zeros_like(mean), self.fold, self.resampler)
        return Difference(*(100 * value for value in (found.value, found.low, found.high)))


@dataclass(frozen=True)
class SeedNoise:
    """How far the differences of a table's cells scatter over seeds.

    A seed fixes first weights, orders and wrong labels of both cells, so differences are taken seed
    by seed. Three of them tell little of a cell's own spread: the median variance of the *other*
    cells, if there are two or more, counts beside it as three degrees of freedom (a moderated t
    statistic, Smyth 2004, whose prior is fixed; a median, since cells need not spread alike). The
    interval of a cell that spreads like the others holds 95 to 97 % of true values, of one that
    spreads twice as much 88 %. Of a cell with one seed the others say all, be it one of them.

    Attributes:
        differences: of each cell, at each of its seeds, two or more, points.
    """

    differences: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, differences: Iterable[Sequence[float]]) -> Self | None:
        """Of the differences at each seed of each cell, points; None of one seed each."""
        several = tuple(tuple(each) for each in differences if len(each) > 1)
        return cls(several) if several else None

    def reach(self, own: Sequence[float]) -> float:
        """Half of the 95 % interval of the mean of a cell's differences `own`, points, which are
        among those that this is of (or one alone, which has no spread)."""
        others = list(self.differences)
        if tuple(own) in others:
            others.remove(tuple(own))
        if len(others) == 1 and len(own) > 1:
            others = []  # which may be quite unlike: Student's own interval
        prior = min(_PRIOR, sum(len(each) - 1 for each in others))
        freedom = prior + len(own) - 1
        theirs = prior * statistics.median(map(_variance, others)) if others else 0.0
        return _student(freedom) * math.sqrt((theirs + _squares(own)) / freedom / len(own))


def _variance(values: Sequence[float]) -> float:
    """Unbiased where a median is taken of several: that of a chi-squared variable lies below its
    mean (by the approximation of Wilson and Hilferty)."""
    freedom = len(values) - 1
    return _squares(values) / freedom / (1 - 2 / (9 * freedom)) ** 3


def _squares(values: Sequence[float]) -> float:
    """Sum of squares around the mean."""
    return float(np.var(values)) * len(values)


@cache
def _student(freedom: int) -> float:
    """Where 95 % of Student's distribution lie to both sides of 0."""
    draws = np.random.default_rng(0).standard_t(freedom, _DRAWS)
    return float(np.quantile(np.abs(draws), 0.95))

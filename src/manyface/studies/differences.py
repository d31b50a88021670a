"""What a cell gains or loses against another: on equal pairs, in the light of people and seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import numpy.typing as npt

from manyface.evaluate import Resampler, accuracy_difference, accuracy_weights
from manyface.evaluate.pairs import PairSet

Gain = npt.NDArray[np.float64]  # [P] of two runs: 1 where only the first decides a pair rightly
_DRAWS = 200_000  # of Student's t: its quantile to one or two in a hundred
_PRIOR = 3  # most degrees of freedom that a table's other cells have in a cell's spread


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
    by seed. Three of them tell little of a cell's own spread, and cells need not spread alike: the
    pooled variance of the *other* cells counts beside it, as three degrees of freedom or as many as
    they have (a moderated t statistic, Smyth 2004, whose prior is fixed). The interval of a cell
    that spreads like the others holds 95 or 96 % of true values, of one that spreads twice as much
    86 to 90 %.

    Attributes:
        squares: sum of squares around the mean of each cell, of all cells, points squared.
        freedom: their degrees of freedom, at least 1.
    """

    squares: float
    freedom: int

    @classmethod
    def of(cls, differences: Sequence[Sequence[float]]) -> Self | None:
        """Of the differences at each seed of each cell, points; None of one seed each."""
        freedom = sum(len(each) - 1 for each in differences if each)
        squares = sum(_squares(each) for each in differences if each)
        return cls(squares, freedom) if freedom else None

    def reach(self, own: Sequence[float]) -> float:
        """Half of the 95 % interval of the mean of a cell's differences `own`, points, which are
        among those that this is of (or one alone, which has no spread)."""
        of_others = self.freedom - (len(own) - 1)
        prior = min(_PRIOR, of_others)
        freedom = prior + len(own) - 1
        theirs = prior * (self.squares - _squares(own)) / of_others if of_others else 0.0
        return _student(freedom) * math.sqrt((theirs + _squares(own)) / freedom / len(own))


def _squares(values: Sequence[float]) -> float:
    """Sum of squares around the mean."""
    return float(np.var(values)) * len(values)


@cache
def _student(freedom: int) -> float:
    """Where 95 % of Student's distribution lie to both sides of 0."""
    draws = np.random.default_rng(0).standard_t(freedom, _DRAWS)
    return float(np.quantile(np.abs(draws), 0.95))

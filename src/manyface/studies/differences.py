"""What a cell gains or loses against another: on equal pairs, in the light of people and seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import numpy.typing as npt

from manyface.evaluate import Resampler, accuracy_difference
from manyface.evaluate.pairs import PairSet
from manyface.studies.ledger import Correct

_DRAWS = 200_000  # of Student's t: its quantile to one or two in a hundred


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


@dataclass(frozen=True)
class OnPairs:
    """The folds of a table's pairs, and their people drawn again: the same for all its lines."""

    fold: npt.NDArray[np.int64]
    resampler: Resampler

    @classmethod
    def of(cls, pairs: PairSet) -> Self:
        """Of these pairs."""
        return cls(pairs.fold, Resampler(pairs.same, *pairs.identities()))

    def difference(self, first: Sequence[Correct], second: Sequence[Correct]) -> Difference:
        """Accuracy of `first` less `second`, of the means over seeds, people resampled; a pair
        counts with the share of the seeds that decide it rightly."""
        shares = [np.mean(group, axis=0) for group in (first, second)]
        found = accuracy_difference(shares[0], shares[1], self.fold, self.resampler)
        return Difference(*(100 * value for value in (found.value, found.low, found.high)))


@dataclass(frozen=True)
class SeedNoise:
    """How far accuracy scatters over seeds, pooled over a table's cells: three seeds of one cell
    tell little of their spread, those of ten cells enough.

    Attributes:
        deviation: standard deviation of a run, points.
        freedom: degrees of freedom that it has.
    """

    deviation: float
    freedom: int

    @classmethod
    def of(cls, accuracies: Sequence[Sequence[float]]) -> Self | None:
        """Of the accuracies of each cell's seeds, shares; None of one seed each."""
        freedom = sum(len(each) - 1 for each in accuracies if each)
        squares = sum(float(np.var(each)) * len(each) for each in accuracies if each)
        return cls(100 * math.sqrt(squares / freedom), freedom) if freedom else None

    def reach(self, seeds: int) -> float:
        """Half of the 95 % interval of a difference of two means over so many seeds each."""
        return _student(self.freedom) * self.deviation * math.sqrt(2 / seeds)


@cache
def _student(freedom: int) -> float:
    """Where 95 % of Student's distribution lie to both sides of 0."""
    draws = np.random.default_rng(0).standard_t(freedom, _DRAWS)
    return float(np.quantile(np.abs(draws), 0.95))

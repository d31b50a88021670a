"""How many pictures each person has, and which picture of whom a record is.

Equal counts are computed and take no memory. Real sets are long-tailed: few people have many
pictures and many have one. Long-tailed counts follow a law of Zipf and Mandelbrot with exponent 1,
cut off so that the last ranks have one picture. Of N people with `mean` pictures on average, the
one of rank r = 0, 1, ... has

    n(r) = 1 + floor(c (1 - u) / (1 + long_tail u)),    u = (r + 1/2) / N,

with c such that the counts make N mean in all, or up to N / 100 less; what is missing goes one each
to the first ranks, so the mean is exact. A keyed permutation gives people their ranks: the number
of a person says nothing of how many pictures there are.

Only correctly rounded arithmetic and sums of whole numbers: counts are the same on every machine.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from manyface.base.permutation import Permutation

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


class Counts(Protocol):
    """Pictures of people; the records of one person are neighbours.

    Attributes:
        total: number of records.
    """

    total: int

    def locate(self, records: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Person and number of the picture, int64 `[B]` each, of records `[B]` in [0, total)."""
        ...

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """First record and number of pictures of each person: int64 `[B]` -> int64 `[B]` twice."""
        ...


class EqualCounts:
    """`each` pictures of every person; nothing is stored."""

    def __init__(self, num_identities: int, each: int) -> None:
        self.total, self._each = num_identities * each, each

    def locate(self, records: Int64Array) -> tuple[Int64Array, Int64Array]:
        """As in Counts."""
        return np.divmod(records, self._each)

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """As in Counts."""
        return identities * self._each, np.full(len(identities), self._each, np.int64)


class ListedCounts:
    """Any counts, int64 `[N]`, each at least 1; 8 bytes are stored for each person."""

    def __init__(self, counts: Int64Array) -> None:
        self._first = np.zeros(len(counts) + 1, np.int64)  # of each person, then the total
        np.cumsum(counts, out=self._first[1:])
        self.total = int(self._first[-1])

    def locate(self, records: Int64Array) -> tuple[Int64Array, Int64Array]:
        """As in Counts."""
        identities = np.searchsorted(self._first, records, side="right") - 1
        return identities, records - self._first[identities]

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """As in Counts."""
        first = self._first[identities]
        return first, self._first[identities + 1] - first


def long_tailed_counts(
    num_identities: int, *, mean: int, long_tail: float, seed: int
) -> Int64Array:
    """Pictures of each person, int64 `[num_identities]`; they sum to num_identities * mean.

    Args:
        mean: pictures a person, at least 1.
        long_tail: above 0; the greater, the more the first ranks have.
        seed: of the ranks that people get.
    """
    ranks = Permutation(num_identities, seed=seed)(np.arange(num_identities))
    return ranked_counts(num_identities, mean=mean, long_tail=long_tail)[ranks]


def ranked_counts(num_identities: int, *, mean: int, long_tail: float) -> Int64Array:
    """The same by rank, most pictures first."""
    places = (np.arange(num_identities) + 0.5) / num_identities
    weights = (1.0 - places) / (1.0 + long_tail * places)
    scale = _scale(weights, total=num_identities * (mean - 1))
    counts = 1 + np.floor(scale * weights).astype(np.int64)
    counts[: num_identities * mean - int(counts.sum())] += 1
    return counts


def _scale(weights: Float64Array, *, total: int) -> float:
    """A c, by bisection, for which floor(c weights) sum to `total` or a little less."""
    low, high = 0.0, 1.0
    while _sum(high, weights) <= total:
        low, high = high, 2.0 * high
    for _ in range(64):
        if total - _sum(low, weights) <= len(weights) // 100:
            break
        middle = 0.5 * (low + high)
        if _sum(middle, weights) <= total:
            low = middle
        else:
            high = middle
    return low


def _sum(scale: float, weights: Float64Array) -> int:
    return int(np.floor(scale * weights).sum())  # whole numbers below 2^53: exact in any order

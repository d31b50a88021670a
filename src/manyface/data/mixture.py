"""Several sets as one source, each with its share of every batch.

Records and labels of the sets stand one set after the other. Which set a position belongs to, and
which turn of that set it is, follow from the position alone, so that a restart needs the step and
nothing else. Of two sets with shares a >= A - a (whole numbers), the first has floor(p a / A) of
the positions before p, the second the rest; of more sets the largest comes first and the rest is
shared out in the same way again. So all sets come as evenly as whole images allow: among any
positions in a row a set has its share but for less than 1 image of two sets, and 2 + ln S of S
sets. After A positions each has had exactly its share: where shares are numbers of images, an epoch
of all is one of each.

Each set has a sampler of its own, so its own epochs, and shuffles as it likes.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.random import stream_seed
from manyface.data.records.table import LazyStrings
from manyface.data.samplers import MakeSampler
from manyface.data.source import GroupedSource, Int64Array, check_records

_LARGEST_SUM = 2**31  # of shares: products with what is left of a position stay below 2^62
_ROUNDED_SUM = 2**30


class Mixture:
    """A `GroupedSource` of all the images of `sources`, at least one, of one image size.

    Attributes:
        sources: the sets.
        first_records, first_labels: int64 [S + 1], where each set begins.
    """

    def __init__(self, sources: Sequence[GroupedSource]) -> None:
        self.sources = list(sources)
        sizes = {source.image_size for source in sources}
        if len(sizes) != 1:
            raise ConfigError(f"sets to be mixed need one image size, got {sorted(sizes)}")
        self.image_size = sizes.pop()
        self.name = " + ".join(source.name for source in sources)
        self.first_records = _borders([len(source) for source in sources])
        self.first_labels = _borders([source.num_identities for source in sources])
        self.num_identities = int(self.first_labels[-1])
        self.identity_names: Sequence[str] = _Joined([each.identity_names for each in sources])

    def __len__(self) -> int:
        return int(self.first_records[-1])

    def labels(self, indices: Int64Array) -> Int64Array:
        """Identity of each record among those of all sets, int64 [B]."""
        found = np.empty_like(indices)
        for number, here, records in self._parts(indices):
            found[here] = self.sources[number].labels(records) + self.first_labels[number]
        return found

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """First record and number of images of each identity, int64 [B] each."""
        first, count = np.empty_like(identities), np.empty_like(identities)
        for number, here, labels in _parts(identities, self.first_labels):
            first[here], count[here] = self.sources[number].images_of(labels)
            first[here] += self.first_records[number]
        return first, count

    def load(self, indices: Int64Array, out: Tensor | None = None) -> Tensor:
        """int64 [B] -> uint8 [B, S, S, 3], in `out` if it is given."""
        if out is None:
            out = torch.empty(len(indices), self.image_size, self.image_size, 3, dtype=torch.uint8)
        for number, here, records in self._parts(indices):
            if len(records) == len(indices):
                return self.sources[number].load(records, out)
            out[torch.from_numpy(here)] = self.sources[number].load(records)
        return out

    def from_storage(self, places: Int64Array) -> Int64Array:
        """Records at `places` of the storages, one behind the other; int64 [B] each."""
        found = np.empty_like(places)
        for number, here, mine in self._parts(places):
            found[here] = self.sources[number].from_storage(mine) + self.first_records[number]
        return found

    def will_read(self, indices: Int64Array) -> None:
        """Hint: these records will be asked for soon."""
        for number, _, records in self._parts(indices):
            self.sources[number].will_read(records)

    def _parts(self, indices: Int64Array) -> list[tuple[int, Int64Array, Int64Array]]:
        check_records(indices, len(self))
        return _parts(indices, self.first_records)


class Shares:
    """Which set each position belongs to, and which turn of that set it is.

    Args:
        weights: of each set, above 0; only their ratios count. Texts such as "0.3" are exact.
    """

    def __init__(self, weights: Sequence[float | str]) -> None:
        self.numbers = _whole_numbers([Fraction(str(weight)) for weight in weights])
        self._largest_first = sorted(range(len(weights)), key=lambda each: -self.numbers[each])

    def of(self, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Set and turn of each position: int64 [B] -> int64 [B] twice."""
        sets = np.full_like(positions, self._largest_first[-1])
        turns, left = positions.copy(), np.arange(len(positions))
        total = sum(self.numbers)
        for number in self._largest_first[:-1]:
            rest, share = turns[left], self.numbers[number]
            before = _share_of(rest, share, total)
            is_here = _share_of(rest + 1, share, total) > before
            sets[left[is_here]] = number
            turns[left] = np.where(is_here, before, rest - before)
            left, total = left[~is_here], total - share
        return sets, turns

    def before(self, position: int) -> list[int]:
        """Turns of each set among the positions before this one."""
        found, rest, total = [0] * len(self.numbers), position, sum(self.numbers)
        for number in self._largest_first:
            found[number] = rest * self.numbers[number] // total
            rest, total = rest - found[number], total - self.numbers[number]
        return found


class MixtureSampler:
    """Each set by its share, in an order of its own; a `Sampler` of the records of a `Mixture`.

    Args:
        length: records of all sets, the sum of `sizes`.
        seed: of all orders.
        sizes: records of each set.
        shares: which set each position belongs to.
        orders: make the sampler of each set.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        sizes: Sequence[int],
        shares: Shares,
        orders: Sequence[MakeSampler],
    ) -> None:
        if length != sum(sizes):
            raise ValueError(f"expected as many records as the sets have, {sum(sizes)}: {length}")
        self._first, self._shares = _borders(sizes), shares
        self._samplers = [
            order(size, seed=stream_seed(seed, "set", number))
            for number, (order, size) in enumerate(zip(orders, sizes, strict=True))
        ]

    def indices(self, positions: Int64Array) -> Int64Array:
        """Records at `positions`: int64 [B], each >= 0 -> int64 [B]."""
        sets, turns = self._shares.of(np.asarray(positions, dtype=np.int64))
        found = np.empty_like(turns)
        for number in np.unique(sets).tolist():
            here = sets == number
            found[here] = self._samplers[number].indices(turns[here]) + self._first[number]
        return found

    def ahead(self, first: int, count: int, *, begins: bool = False) -> Int64Array:
        """What the samplers of the sets ask for."""
        starts, stops = self._shares.before(first), self._shares.before(first + count)
        parts = [
            sampler.ahead(start, stop - start, begins=begins) + begin
            for sampler, start, stop, begin in zip(
                self._samplers, starts, stops, self._first[:-1].tolist(), strict=True
            )
        ]
        return np.concatenate(parts)


class _Joined(LazyStrings):
    """Names of one set behind those of the other, not copied."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts, self._first = parts, _borders([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._first[-1])

    def _string(self, index: int) -> str:
        number = int(self._first.searchsorted(index, side="right")) - 1
        return self._parts[number][index - int(self._first[number])]


def _borders(sizes: Sequence[int]) -> Int64Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _parts(values: Int64Array, first: Int64Array) -> list[tuple[int, Int64Array, Int64Array]]:
    """Of each set that `values` [B] touch: number, places [b] in them, values counted in it [b]."""
    sets = np.searchsorted(first, values, side="right") - 1
    found = []
    for number in np.unique(sets).tolist():
        here = np.flatnonzero(sets == number)
        found.append((number, here, values[here] - first[number]))
    return found


def _share_of(positions: Int64Array, share: int, total: int) -> Int64Array:
    """floor(positions share / total) without products beyond 64 bits."""
    found: Int64Array = positions // total * share + positions % total * share // total
    return found


def _whole_numbers(weights: list[Fraction]) -> list[int]:
    """Whole numbers in the ratios of `weights`, exactly where they are not too large."""
    if not weights or min(weights) <= 0:
        raise ConfigError(f"weights of sets must be above 0, got {[float(w) for w in weights]}")
    factor = Fraction(lcm(*(weight.denominator for weight in weights)))
    if sum(weights) * factor > _LARGEST_SUM:
        factor = _ROUNDED_SUM / Fraction(sum(weights))
    return [max(1, round(weight * factor)) for weight in weights]

"""Where a batch of identities went, and the state of all slots: the records of slots.py."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Rule = Literal["hits_first", "sequential"]
NO_SLOT = -1
FEATURES = 2  # per slot at most: the two newest


@dataclass(frozen=True)
class Placement:
    """Where the labels of a batch went.

    Attributes:
        slots: int64 [B], slot of each label at its turn.
        rows: int64 [B], which of a slot's two features each label overwrites: 0 for a new
            identity, from then on the older one.
        again: bool [B], whether the identity was in the pool when this label came.
        kept: int64 [W], the labels whose feature is still there at the end of the batch: of all
            that go to one (slot, row) the last.
        newest: int64 [U], the same where a slot has one feature: of all that go to a slot the last.
        used: int64 [U], the distinct slots, most recently used last.
        identities, next_rows: int64 [U], what they hold now, and which feature is next.
    """

    slots: Int64Array
    rows: Int64Array
    again: BoolArray
    kept: Int64Array
    newest: Int64Array
    used: Int64Array
    identities: Int64Array
    next_rows: Int64Array


@dataclass(frozen=True)
class SlotState:
    """All that later placements depend on.

    Attributes:
        identities: int64 [F], identity of each filled slot; slots are filled from 0 on.
        order: int64 [F], the filled slots, least recently used first.
        next_rows: int64 [F], which of its two features a slot's next hit overwrites.
    """

    identities: Int64Array
    order: Int64Array
    next_rows: Int64Array

    def check(self, *, num_slots: int, num_identities: int) -> None:
        """Raise ConfigError if a pool of that size cannot be in this state."""
        filled = len(self.identities)
        if filled > num_slots or not np.array_equal(np.sort(self.order), np.arange(filled)):
            raise ConfigError(
                f"the state is of another pool: it fills {filled} slots, here are {num_slots}; "
                "take as many slots as it was saved with"
            )
        if filled and not 0 <= self.identities.min() <= self.identities.max() < num_identities:
            raise ConfigError(
                f"the state is of other identities: it holds {self.identities.min()} to "
                f"{self.identities.max()}, expected [0, {num_identities}); take the num_identities "
                "it was saved with"
            )


@dataclass(frozen=True)
class Distinct:
    """The distinct identities of a batch, D of B.

    Attributes:
        identities: int64 [D], sorted.
        first, last: int64 [D], place in the batch of first and last mention.
        counts: int64 [D], mentions.
        group: int64 [B], each label's place among the distinct ones.
        mention: int64 [B], how often the identity was named before.
    """

    identities: Int64Array
    first: Int64Array
    last: Int64Array
    counts: Int64Array
    group: Int64Array
    mention: Int64Array

    @staticmethod
    def of(labels: Int64Array) -> "Distinct":
        # One sort of (label, place) packed into a number: faster than a stable argsort.
        bits = max(1, len(labels) - 1).bit_length()
        packed = np.sort(labels.astype(np.int64) << bits | np.arange(len(labels)))
        ordered, order = packed >> bits, packed & ((1 << bits) - 1)
        begins = np.flatnonzero(np.diff(ordered, prepend=-1))  # labels are at least 0
        counts = np.diff(begins, append=len(labels))
        group, mention = np.empty_like(order), np.empty_like(order)
        group[order] = np.repeat(np.arange(len(begins)), counts)
        mention[order] = np.arange(len(labels)) - np.repeat(begins, counts)
        last = order[begins + counts - 1]
        return Distinct(ordered[begins], order[begins], last, counts, group, mention)


def in_turn(values: Int64Array, turns: Int64Array, count: int) -> Int64Array:
    """`values` (at least 0) sorted by their turns, distinct and below `count`, without a sort."""
    seats = np.full(count, -1)
    seats[turns] = values
    return seats[seats >= 0]


def last_of_each(keys: Int64Array) -> Int64Array:
    """Places of the last mention of each key, sorted: int64."""
    _, from_behind = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - from_behind)

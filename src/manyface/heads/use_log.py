"""The order in which slots were used: a log that is appended to, O(1) per use and without a list.

Every use of a slot is an entry at the end; `stamp[slot]` is the place of its newest entry, and
older ones are stale. The least recently used slots are the first entries that are not stale. The
log is started anew when it is full. Slots that have no stamp (-1) were never used.
"""

from collections.abc import Callable

import numpy as np

from manyface.heads.placement import Int64Array


class UseLog:
    """Uses of slots in [0, num_slots)."""

    def __init__(self, num_slots: int) -> None:
        self._stamp = np.full(num_slots, -1, np.int64)
        self._log = np.empty(2 * num_slots, np.int32)
        self.head = self._tail = 0  # the entries are [head, tail)

    @property
    def num_bytes(self) -> int:
        return self._stamp.nbytes + self._log.nbytes

    def places(self, slots: Int64Array) -> Int64Array:
        """Place of each slot's newest entry, int64 [n]: the smaller, the longer ago."""
        return self._stamp[slots]

    def slots_at(self, places: Int64Array) -> Int64Array:
        """The slots of the entries at `places` [n], int64 [n]."""
        return self._log[places].astype(np.int64)

    def order(self) -> Int64Array:
        """The slots that were used, least recently used first: int64 [F]."""
        return self.slots_at(self.head + self._fresh(self.head, self._tail))

    def oldest(self, count: int, *, excluding: Int64Array) -> Int64Array:
        """Places of up to `count` least recently used slots that are not among `excluding`."""
        if count == 0:
            return np.empty(0, np.int64)
        stamps = self._stamp[excluding]
        self._stamp[excluding] = -1  # their entries are stale for a moment
        found: list[Int64Array] = []
        start = self.head
        while count > 0 and start < self._tail:
            stop = min(start + 2 * count + 64, self._tail)
            found.append(start + self._fresh(start, stop)[:count])
            count -= len(found[-1])
            start = stop
        self._stamp[excluding] = stamps
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def use(self, slots: Int64Array) -> None:
        """Append `slots`, distinct; the last one is the most recently used."""
        stop = self._tail + len(slots)
        self._log[self._tail : stop] = slots
        self._stamp[slots] = np.arange(self._tail, stop)
        self._tail = stop

    def forget_before(self, place: int) -> None:
        """All entries before `place` are known to be stale."""
        self.head = place

    def start_anew(self, order: Int64Array) -> None:
        """With `order`, least recently used first, and nothing else."""
        self._stamp.fill(-1)
        self.head = self._tail = 0
        self.use(order)

    def make_room(self, count: int, *, tidy: bool) -> None:
        """See that `count` slots can be appended, now and once more in a trial that may follow.

        `tidy`: start anew where it is nearly full, which no undo may have to go back behind.
        """
        if self._tail + 4 * count > len(self._log) and tidy:
            self.start_anew(self.order())
        if (missing := self._tail + count - len(self._log)) > 0:
            self._log = np.concatenate([self._log, np.empty(4 * missing, np.int32)])

    def undo_of_use(self, slots: Int64Array) -> Callable[[], None]:
        """What takes a `use` of `slots` back that is still to come: O(batch)."""
        stamps, head, tail = self._stamp[slots], self.head, self._tail

        def undo() -> None:
            self._stamp[slots] = stamps
            self.head, self._tail = head, tail

        return undo

    def undo_of_all(self) -> Callable[[], None]:
        """What goes back to all as it is now: O(slots)."""
        stamp, log, head, tail = self._stamp.copy(), self._log.copy(), self.head, self._tail

        def undo() -> None:
            self._stamp, self._log, self.head, self._tail = stamp, log, head, tail

        return undo

    def _fresh(self, start: int, stop: int) -> Int64Array:
        """Which entries in [start, stop) are not stale, counted from `start`."""
        return np.flatnonzero(self._stamp[self._log[start:stop]] == np.arange(start, stop))

"""Which identity has which slot of the dynamic class pool; the least recently used one makes room.

Labels are known when a batch is loaded, so slots are planned ahead on the host, a batch at a time
and without a loop over its labels:

- *index*: identity -> slot, a plain array of 4 bytes per identity (-1: not in the pool);
- *log*: slots in the order of their use, appended to by every batch; `stamp[slot]` is the place of
  a slot's newest entry, and older entries are stale. The least recently used slots are the first
  entries that are not stale. The log is tidied when it is full: O(1) per use.

A batch may name an identity several times, and there are two rules for it.

`hits_first` (default): every identity of the batch that is in the pool is used, then the others
take free slots or those of the least recently used identities *outside the batch*. A batch may
have at most as many distinct identities as there are slots.

`sequential`: as if the labels came one after the other, as the official code of F2C walks them. An
identity may then be evicted by its batch-mates before its own turn and comes in again. Only such
conflicting labels are looped over; a batch that does not fit into the pool is walked one by one.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, LabelError

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Rule = Literal["hits_first", "sequential"]
NO_SLOT = -1
FEATURES = 2  # per slot at most: the two newest
_LARGEST = 2**31 - 1


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
class _Distinct:
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
    def of(labels: Int64Array) -> "_Distinct":
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
        return _Distinct(ordered[begins], order[begins], last, counts, group, mention)


@dataclass(frozen=True)
class _Moves:
    """Who comes into the pool where.

    Attributes:
        missing: int64 [M], places among the distinct, by first mention.
        slots: int64 [M], what each of them is given.
        head: of the log, once this is done.
    """

    missing: Int64Array
    slots: Int64Array
    head: int


class Slots:
    """Identity -> slot for `num_slots` slots and identities in [0, num_identities).

    Raises:
        ConfigError: no slots, or more of them than identities.
    """

    def __init__(self, num_slots: int, *, num_identities: int, rule: Rule = "hits_first") -> None:
        if not 1 <= num_slots <= num_identities <= _LARGEST:
            raise ConfigError(
                f"a pool needs 1 <= slots <= identities <= {_LARGEST}, "
                f"got {num_slots} slots for {num_identities} identities"
            )
        if rule not in ("hits_first", "sequential"):
            raise ConfigError(f"expected rule 'hits_first' or 'sequential', got {rule!r}")
        self.num_slots, self.num_identities, self.rule = num_slots, num_identities, rule
        self.num_filled = 0
        self._index = np.full(num_identities, NO_SLOT, np.int32)
        self._identity = np.full(num_slots, NO_SLOT, np.int32)
        self._next_row = np.zeros(num_slots, np.int8)
        self._stamp = np.full(num_slots, -1, np.int64)
        self._log = np.empty(2 * num_slots, np.int32)
        self._head = self._tail = 0  # the log's entries are [head, tail)
        self._undo: list[Callable[[], None]] = []
        self._trials = 0

    def find(self, labels: Int64Array) -> Int64Array:
        """Slot of each label, int64 [B], NO_SLOT for those outside; changes nothing."""
        self.check(labels)
        return self._index[labels].astype(np.int64)

    def insert(self, labels: Int64Array) -> Placement:
        """Use or bring in the identities `labels`, int64 [B].

        Raises:
            LabelError: a label is no integer or out of range.
            ConfigError: more distinct identities than slots, under the rule `hits_first`.
        """
        self.check(labels)
        batch = _Distinct.of(labels)
        self._check_fits(batch)
        self._make_room(len(batch.identities))
        slots = self._index[batch.identities].astype(np.int64)  # [D]
        moves = self._plan(batch, slots)
        return self._one_by_one(labels) if moves is None else self._apply(batch, slots, moves)

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Whatever is inserted inside is taken back at the end; may be nested."""
        mark = len(self._undo)
        self._trials += 1
        try:
            yield
        finally:
            while len(self._undo) > mark:
                self._undo.pop()()
            self._trials -= 1

    def order(self) -> Int64Array:
        """The filled slots, least recently used first: int64 [num_filled]."""
        return self._log[self._head + self._fresh(self._head, self._tail)].astype(np.int64)

    def state(self) -> SlotState:
        """A copy of all that later placements depend on."""
        filled = slice(self.num_filled)
        return SlotState(
            self._identity[filled].astype(np.int64),
            self.order(),
            self._next_row[filled].astype(np.int64),
        )

    def restore(self, state: SlotState) -> None:
        """Go to `state`, of a pool with as many slots and identities; ConfigError otherwise."""
        state.check(num_slots=self.num_slots, num_identities=self.num_identities)
        filled = len(state.identities)
        self._index[self._identity[: self.num_filled]] = NO_SLOT
        self._index[state.identities] = np.arange(filled)
        self._identity[:filled] = state.identities
        self._next_row[:filled] = state.next_rows
        self.num_filled = filled
        self._set_order(state.order)

    # --- one batch --------------------------------------------------------------------------------

    def _plan(self, batch: _Distinct, slots: Int64Array) -> _Moves | None:
        """Who comes in where, given the slots [D]; None: walk the batch label by label."""
        missing = np.flatnonzero(slots < 0)
        missing = _in_turn(missing, batch.first[missing], len(batch.group))
        num_free = min(len(missing), self.num_slots - self.num_filled)
        free = np.arange(self.num_filled, self.num_filled + num_free)
        hits = np.flatnonzero(slots >= 0)
        # Without the batch's own, who are all about to be used.
        places = self._oldest(len(missing) - num_free, excluding=slots[hits])
        if len(places) < len(missing) - num_free:
            return None
        head = int(places[-1]) + 1 if len(places) else self._head
        if self.rule == "sequential":
            conflicts = hits[self._stamp[slots[hits]] < head]
            evicted = _evicted_early(
                conflicts[np.argsort(self._stamp[slots[conflicts]])],
                stamps=self._stamp[slots],
                turns=batch.first,
                missing_turns=batch.first[missing].tolist(),
                num_free=num_free,
                places=places,
            )
            missing = np.concatenate([missing, evicted])
            missing = _in_turn(missing, batch.first[missing], len(batch.group))
            places = np.sort(np.concatenate([places, self._stamp[slots[evicted]]]))
        return _Moves(missing, np.concatenate([free, self._log[places]]), head)

    def _apply(self, batch: _Distinct, slots: Int64Array, moves: _Moves) -> Placement:
        """Give the misses their slots, note the use of all; `slots` [D] is overwritten."""
        missing, new_slots = moves.missing, moves.slots
        newcomers = batch.identities[missing]
        leaving = self._identity[new_slots]
        slots[missing] = new_slots
        if self._trials:
            self._remember(slots, newcomers, new_slots, leaving)
        self._index[leaving[leaving >= 0]] = NO_SLOT
        self._index[newcomers] = new_slots
        self._identity[new_slots] = newcomers
        self._next_row[new_slots] = 0
        self.num_filled = max(self.num_filled, int(new_slots.max(initial=-1)) + 1)
        by_use = _in_turn(np.arange(len(slots)), batch.last, len(batch.group))
        self._use(slots[by_use])
        self._head = moves.head  # all before are stale now: used, or evicted and used
        first_rows = self._next_row[slots].astype(np.int64)  # [D]
        next_rows = (first_rows + batch.counts) % FEATURES
        self._next_row[slots] = next_rows
        came_back = np.ones(len(slots), np.bool_)
        came_back[missing] = False
        return Placement(
            slots=slots[batch.group],
            rows=(first_rows[batch.group] + batch.mention) % FEATURES,
            again=came_back[batch.group] | (batch.mention > 0),
            # Of an identity's mentions the last two write to different rows.
            kept=np.flatnonzero(batch.counts[batch.group] - batch.mention <= FEATURES),
            newest=np.sort(batch.last),
            used=slots[by_use],
            identities=batch.identities[by_use],
            next_rows=next_rows[by_use],
        )

    def _remember(
        self,
        slots: Int64Array,
        newcomers: Int64Array,
        new_slots: Int64Array,
        leaving: npt.NDArray[np.int32],
    ) -> None:
        """Put on the undo list what a batch is about to overwrite: O(batch)."""
        stamps, rows = self._stamp[slots], self._next_row[slots]
        head, tail, filled = self._head, self._tail, self.num_filled

        def undo() -> None:
            self._index[newcomers] = NO_SLOT
            self._index[leaving[leaving >= 0]] = new_slots[leaving >= 0]
            self._identity[new_slots] = leaving
            self._stamp[slots], self._next_row[slots] = stamps, rows
            self._head, self._tail, self.num_filled = head, tail, filled

        self._undo.append(undo)

    def _remember_all(self) -> None:
        """The same by copies of everything but the index: O(slots)."""
        saved = {name: getattr(self, name) for name in ("_head", "_tail", "num_filled")}
        for name in ("_identity", "_next_row", "_stamp", "_log"):
            saved[name] = getattr(self, name).copy()

        def undo() -> None:
            self._index[self._identity[: self.num_filled]] = NO_SLOT
            vars(self).update(saved)
            self._index[self._identity[: self.num_filled]] = np.arange(self.num_filled)

        self._undo.append(undo)

    def _one_by_one(self, labels: Int64Array) -> Placement:
        """The sequential walk itself, for a batch that does not fit: O(slots + batch)."""
        if self._trials:
            self._remember_all()
        identities = self._identity[self.order()].tolist()
        rows = self._next_row.tolist()
        used: OrderedDict[int, int] = OrderedDict((i, int(self._index[i])) for i in identities)
        placed: list[tuple[int, int, bool]] = []
        for label in labels.tolist():
            again = label in used
            if again:
                used.move_to_end(label)
            else:
                full = len(used) == self.num_slots
                used[label] = used.popitem(last=False)[1] if full else len(used)
                rows[used[label]] = 0
            place = used[label]
            placed.append((place, rows[place], again))
            rows[place] = (rows[place] + 1) % FEATURES
        order = np.array(list(used.values()), np.int64)
        by_slot = np.argsort(order)
        self.restore(
            SlotState(
                identities=np.array(list(used), np.int64)[by_slot],
                order=order,
                next_rows=np.array(rows, np.int64)[: len(used)],
            )
        )
        slots = np.array([each[0] for each in placed], np.int64)
        turns = np.array([each[1] for each in placed], np.int64)
        newest = _last_of_each(slots)
        touched = slots[newest]
        return Placement(
            slots=slots,
            rows=turns,
            again=np.array([each[2] for each in placed], np.bool_),
            kept=_last_of_each(slots * FEATURES + turns),
            newest=newest,
            used=touched,
            identities=self._identity[touched].astype(np.int64),
            next_rows=self._next_row[touched].astype(np.int64),
        )

    # --- the log ----------------------------------------------------------------------------------

    def _oldest(self, count: int, *, excluding: Int64Array) -> Int64Array:
        """Places in the log of up to `count` least recently used slots not among `excluding`."""
        if count == 0:
            return np.empty(0, np.int64)
        stamps = self._stamp[excluding]
        self._stamp[excluding] = -1  # their entries are stale for a moment
        found: list[Int64Array] = []
        start = self._head
        while count > 0 and start < self._tail:
            stop = min(start + 2 * count + 64, self._tail)
            found.append(start + self._fresh(start, stop)[:count])
            count -= len(found[-1])
            start = stop
        self._stamp[excluding] = stamps
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _fresh(self, start: int, stop: int) -> Int64Array:
        """Which entries of the log in [start, stop) are not stale, counted from `start`."""
        return np.flatnonzero(self._stamp[self._log[start:stop]] == np.arange(start, stop))

    def _use(self, slots: Int64Array) -> None:
        """Append `slots`, distinct; the last one is the most recently used."""
        stop = self._tail + len(slots)
        self._log[self._tail : stop] = slots
        self._stamp[slots] = np.arange(self._tail, stop)
        self._tail = stop

    def _make_room(self, count: int) -> None:
        """See that `count` slots can be appended, here and in a trial that may follow."""
        if self._tail + 4 * count > len(self._log) and not self._trials:
            self._set_order(self.order())
        if (missing := self._tail + count - len(self._log)) > 0:
            self._log = np.concatenate([self._log, np.empty(4 * missing, np.int32)])

    def _set_order(self, slots: Int64Array) -> None:
        """Start the log anew with `slots`, least recently used first."""
        self._stamp.fill(-1)
        self._head = self._tail = 0
        self._use(slots)

    # --- checks -----------------------------------------------------------------------------------

    def check(self, labels: Int64Array) -> None:
        """Raise LabelError unless `labels` are integers [B] in [0, num_identities)."""
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise LabelError(
                f"labels must be integers, one per image, got {labels.dtype} of shape "
                f"{labels.shape}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_identities:
            place = int(np.flatnonzero((labels < 0) | (labels >= self.num_identities))[0])
            raise LabelError(
                f"label {labels[place]} at position {place} of the half batch is outside "
                f"[0, {self.num_identities}): check num_identities and how labels are made"
            )

    def _check_fits(self, batch: _Distinct) -> None:
        if self.rule == "hits_first" and len(batch.identities) > self.num_slots:
            raise ConfigError(
                f"half a batch has {len(batch.identities)} identities, the pool {self.num_slots} "
                "slots; take more slots, a smaller batch, or the rule 'sequential'"
            )


def _evicted_early(
    conflicts: Int64Array,
    *,
    stamps: Int64Array,
    turns: Int64Array,
    missing_turns: list[int],
    num_free: int,
    places: Int64Array,
) -> Int64Array:
    """Those identities of the batch that a sequential walk evicts before their own turn.

    `conflicts`, oldest first, are older than some victim (`places` [V], of identities outside the
    batch). One is evicted if the miss that would take its slot comes before its own turn; then it
    is a miss at its turn. That takes one victim more, and it is one more, so `places` stays right.
    """
    evicted: list[int] = []
    for each in conflicts.tolist():
        older = int(np.searchsorted(places, stamps[each])) + len(evicted)
        if turns[each] > missing_turns[num_free + older]:
            evicted.append(each)
            insort(missing_turns, int(turns[each]))
    return np.array(evicted, np.int64)


def _in_turn(values: Int64Array, turns: Int64Array, count: int) -> Int64Array:
    """`values` (at least 0) sorted by their turns, distinct and below `count`, without a sort."""
    seats = np.full(count, -1)
    seats[turns] = values
    return seats[seats >= 0]


def _last_of_each(keys: Int64Array) -> Int64Array:
    """Places of the last mention of each key, sorted: int64."""
    _, from_behind = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - from_behind)

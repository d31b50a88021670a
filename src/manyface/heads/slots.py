"""Which identity has which slot of the dynamic class pool; the least recently used one makes room.

Labels are known when a batch is loaded, so slots are planned ahead on the host, a batch at a time
and without a loop over its labels:

- *index*: identity -> slot, a plain array of 4 bytes per identity (-1: not in the pool);
- *uses*: which slots were used longest ago (use_log.py).

A batch may name an identity several times, and there are two rules for it.

`hits_first` (default): every identity of the batch that is in the pool is used, then the others
take free slots or those of the least recently used identities *outside the batch*. A batch may
have at most as many distinct identities as there are slots.

`sequential`: as if the labels came one after the other, as the official code of F2C walks them. An
identity may then be evicted by its batch-mates before its own turn and comes in again. Only such
conflicting labels are looped over; a batch that does not fit into the pool is walked one by one.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, LabelError
from manyface.heads.checks import check_count
from manyface.heads.placement import (
    FEATURES,
    NO_SLOT,
    Distinct,
    Int64Array,
    Placement,
    Rule,
    SlotState,
    in_turn,
    last_of_each,
)
from manyface.heads.sequential import evicted_early, walk
from manyface.heads.use_log import UseLog

_LARGEST = 2**31 - 1


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


def check_slots(num_slots: int, num_identities: int, rule: Rule) -> None:
    """Raise ConfigError where no `Slots` can be made of these."""
    check_count("num_slots", num_slots)
    check_count("num_identities", num_identities)
    if not num_slots <= num_identities <= _LARGEST:
        raise ConfigError(
            f"a pool needs 1 <= slots <= identities <= {_LARGEST}, "
            f"got {num_slots} slots for {num_identities} identities"
        )
    if rule not in ("hits_first", "sequential"):
        raise ConfigError(f"expected rule 'hits_first' or 'sequential', got {rule!r}")


class Slots:
    """Identity -> slot for `num_slots` slots and identities in [0, num_identities).

    Raises:
        ConfigError: no slots, or more of them than identities, or no such rule.
    """

    def __init__(self, num_slots: int, *, num_identities: int, rule: Rule = "hits_first") -> None:
        check_slots(num_slots, num_identities, rule)
        self.num_slots, self.num_identities, self.rule = num_slots, num_identities, rule
        self.num_filled = 0
        self._index = np.full(num_identities, NO_SLOT, np.int32)
        self._identity = np.full(num_slots, NO_SLOT, np.int32)
        self._next_row = np.zeros(num_slots, np.int8)
        self._uses = UseLog(num_slots)
        self._undo: list[Callable[[], None]] = []
        self._trials = 0

    @property
    def num_bytes(self) -> int:
        """Of index, slots and log."""
        arrays = (self._index, self._identity, self._next_row)
        return sum(each.nbytes for each in arrays) + self._uses.num_bytes

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
        batch = Distinct.of(labels)
        self._check_fits(batch)
        self._uses.make_room(len(batch.identities), tidy=not self._trials)
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
        return self._uses.order()

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
        self._uses.start_anew(state.order)

    # --- one batch --------------------------------------------------------------------------------

    def _plan(self, batch: Distinct, slots: Int64Array) -> _Moves | None:
        """Who comes in where, given the slots [D]; None: walk the batch label by label."""
        missing = np.flatnonzero(slots < 0)
        missing = in_turn(missing, batch.first[missing], len(batch.group))
        num_free = min(len(missing), self.num_slots - self.num_filled)
        free = np.arange(self.num_filled, self.num_filled + num_free)
        hits = np.flatnonzero(slots >= 0)
        # Without the batch's own, who are all about to be used.
        places = self._uses.oldest(len(missing) - num_free, excluding=slots[hits])
        if len(places) < len(missing) - num_free:
            return None
        head = int(places[-1]) + 1 if len(places) else self._uses.head
        if self.rule == "sequential":
            conflicts = hits[self._uses.places(slots[hits]) < head]
            evicted = evicted_early(
                conflicts[np.argsort(self._uses.places(slots[conflicts]))],
                stamps=self._uses.places(slots),
                turns=batch.first,
                missing_turns=batch.first[missing].tolist(),
                num_free=num_free,
                places=places,
            )
            missing = np.concatenate([missing, evicted])
            missing = in_turn(missing, batch.first[missing], len(batch.group))
            places = np.sort(np.concatenate([places, self._uses.places(slots[evicted])]))
        return _Moves(missing, np.concatenate([free, self._uses.slots_at(places)]), head)

    def _apply(self, batch: Distinct, slots: Int64Array, moves: _Moves) -> Placement:
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
        by_use = in_turn(np.arange(len(slots)), batch.last, len(batch.group))
        self._uses.use(slots[by_use])
        self._uses.forget_before(moves.head)  # used since, or evicted and used
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
        rows, filled = self._next_row[slots], self.num_filled
        undo_use = self._uses.undo_of_use(slots)

        def undo() -> None:
            self._index[newcomers] = NO_SLOT
            self._index[leaving[leaving >= 0]] = new_slots[leaving >= 0]
            self._identity[new_slots] = leaving
            self._next_row[slots], self.num_filled = rows, filled
            undo_use()

        self._undo.append(undo)

    def _remember_all(self) -> None:
        """The same by copies of everything but the index: O(slots)."""
        identity, rows, filled = self._identity.copy(), self._next_row.copy(), self.num_filled
        undo_uses = self._uses.undo_of_all()

        def undo() -> None:
            self._index[self._identity[: self.num_filled]] = NO_SLOT
            self._identity, self._next_row, self.num_filled = identity, rows, filled
            self._index[self._identity[: self.num_filled]] = np.arange(self.num_filled)
            undo_uses()

        self._undo.append(undo)

    def _one_by_one(self, labels: Int64Array) -> Placement:
        """The sequential walk itself, for a batch that does not fit: O(slots + batch)."""
        if self._trials:
            self._remember_all()
        identities = self._identity[self.order()].tolist()
        rows = self._next_row.tolist()
        used: OrderedDict[int, int] = OrderedDict((i, int(self._index[i])) for i in identities)
        turns = walk(labels.tolist(), used, rows, num_slots=self.num_slots)
        order = np.array(list(used.values()), np.int64)
        by_slot = np.argsort(order)
        self.restore(
            SlotState(
                identities=np.array(list(used), np.int64)[by_slot],
                order=order,
                next_rows=np.array(rows, np.int64)[: len(used)],
            )
        )
        slots = np.array([slot for slot, _, _ in turns], np.int64)
        written = np.array([row for _, row, _ in turns], np.int64)
        newest = last_of_each(slots)
        touched = slots[newest]
        return Placement(
            slots=slots,
            rows=written,
            again=np.array([again for _, _, again in turns], np.bool_),
            kept=last_of_each(slots * FEATURES + written),
            newest=newest,
            used=touched,
            identities=self._identity[touched].astype(np.int64),
            next_rows=self._next_row[touched].astype(np.int64),
        )

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

    def _check_fits(self, batch: Distinct) -> None:
        if self.rule == "hits_first" and len(batch.identities) > self.num_slots:
            raise ConfigError(
                f"a gallery batch has {len(batch.identities)} identities, the pool "
                f"{self.num_slots} slots; take more slots, a smaller batch, or the rule "
                "'sequential'"
            )

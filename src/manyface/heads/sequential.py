"""The rule `sequential` of slots.py: as if the labels of a batch came one after the other."""

from bisect import insort
from collections import OrderedDict

import numpy as np

from manyface.heads.placement import FEATURES, Int64Array

Turn = tuple[int, int, bool]  # of a label: its slot, its row there, whether it was in the pool


def evicted_early(
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


def walk(
    labels: list[int], used: OrderedDict[int, int], rows: list[int], *, num_slots: int
) -> list[Turn]:
    """The walk itself: O(1) per label.

    Args:
        labels: of the batch.
        used: identity -> slot, least recently used first; goes along.
        rows: of each slot, which feature is overwritten next; goes along.
        num_slots: of the pool; slots are filled from 0 on.
    """
    turns: list[Turn] = []
    for label in labels:
        again = label in used
        if again:
            used.move_to_end(label)
        else:
            full = len(used) == num_slots
            used[label] = used.popitem(last=False)[1] if full else len(used)
            rows[used[label]] = 0
        slot = used[label]
        turns.append((slot, rows[slot], again))
        rows[slot] = (rows[slot] + 1) % FEATURES
    return turns

"""The identity -> slot map of F2C's official code, one label at a time (arXiv 2105.10375)."""

from collections import OrderedDict


class SequentialLRU:
    """Least recently used identities make room; two features a slot, written in turns."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.slot_of: OrderedDict[int, int] = OrderedDict()  # least recently used first
        self.next_row: dict[int, int] = {}

    def insert(self, label: int) -> tuple[int, int, bool]:
        """(slot, row to write, whether the identity was in the pool)."""
        if label in self.slot_of:
            self.slot_of.move_to_end(label)
            slot = self.slot_of[label]
            row = self.next_row[slot]
            self.next_row[slot] = 1 - row
            return slot, row, True
        if len(self.slot_of) < self.num_slots:
            slot = len(self.slot_of)
        else:
            _, slot = self.slot_of.popitem(last=False)
        self.slot_of[label] = slot
        self.next_row[slot] = 1
        return slot, 0, False

    def copy(self) -> "SequentialLRU":
        """For taking inserts back: keep the copy."""
        twin = SequentialLRU(self.num_slots)
        twin.slot_of, twin.next_row = self.slot_of.copy(), dict(self.next_row)
        return twin

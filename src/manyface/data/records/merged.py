"""Several sets as one: their people one after the other, or joined where they are the same.

A merged person has parts, (set, person of it); images of a part stay neighbours. Memory: 24 bytes
for every person of every set, nothing per image.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.base import GroupedRecords, Int64Array, Records
from manyface.data.records.table import ChosenStrings, StringTable

# Pairs of (set, person) that are one person.
Same = list[tuple[tuple[int, int], tuple[int, int]]]


class MergedRecords(GroupedRecords):
    """The people of `sets`, numbered through: those of the first set first.

    Args:
        sets: at least one.
        same: (set, person), (set, person): pairs that are one person; the later one joins the
            earlier one, whose name stays.
    """

    def __init__(self, sets: Sequence[Records], *, same: Same) -> None:
        self._sets = sets
        sizes = [len(each.identity_names) for each in sets]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        owner = self._owners(same)
        # Parts, in the order of the merged people: the numbers of people, counted through the sets.
        self._parts: Int64Array = np.argsort(owner, kind="stable")
        counts = np.concatenate([np.diff(each.first_images) for each in sets])[self._parts]
        self._first_of_part: Int64Array = np.concatenate([[0], np.cumsum(counts)])
        kept, first_part = np.unique(owner[self._parts], return_index=True)
        super().__init__(
            Path(" + ".join(str(each.path) for each in sets)),
            identity_names=self._names(kept),
            images_per_identity=np.add.reduceat(counts, first_part).tolist(),
        )

    @property
    def num_joined(self) -> int:
        """People who are part of another one."""
        return len(self._parts) - len(self.identity_names)

    def read(self, index: int) -> bytes:
        records, place = self._place(index)
        return records.read(place)

    def file_name(self, index: int) -> str:
        records, place = self._place(index)
        return records.file_name(place)

    def describe(self, index: int) -> str:
        records, place = self._place(index)
        return records.describe(place)

    def read_text(self, name: str) -> str:
        for each in self._sets:
            try:
                return each.read_text(name)
            except DataError as error:
                last = error
        raise last

    @property
    def sources(self) -> Sequence[Records]:
        return self._sets

    @property
    def index_bytes(self) -> int:
        return self._parts.nbytes + self._first_of_part.nbytes + self.first_images.nbytes

    def _owners(self, same: Same) -> Int64Array:
        """The earliest person that each one is the same as: int64 [all people]."""
        parent: dict[int, int] = {}

        def root(person: int) -> int:
            while person in parent:
                person = parent[person]
            return person

        for one, other in same:
            ends = [root(int(self._offsets[number]) + person) for number, person in (one, other)]
            if ends[0] != ends[1]:
                parent[max(ends)] = min(ends)
        owner: Int64Array = np.arange(self._offsets[-1])
        for person in parent:
            owner[person] = root(person)
        return owner

    def _names(self, kept: Int64Array) -> Sequence[str]:
        """Names of the people `kept`; one that two sets use is told apart by its set's number."""
        everyone = StringTable(name for each in self._sets for name in each.identity_names)
        names = ChosenStrings(everyone, kept)
        twice = {name for name, count in Counter(names).items() if count > 1}
        if not twice:
            return names
        numbers = self._offsets.searchsorted(kept, side="right")
        return StringTable(
            f"{name} ({number})" if name in twice else name
            for name, number in zip(names, numbers.tolist(), strict=True)
        )

    def _place(self, index: int) -> tuple[Records, int]:
        part = int(self._first_of_part.searchsorted(index, side="right")) - 1
        person = int(self._parts[part])
        number = int(self._offsets.searchsorted(person, side="right")) - 1
        records = self._sets[number]
        first = int(records.first_images[person - self._offsets[number]])
        return records, first + index - int(self._first_of_part[part])


def same_names(sets: Sequence[Records]) -> Same:
    """People of different sets who have one name."""
    seen: dict[str, tuple[int, int]] = {}
    found = []
    for number, each in enumerate(sets):
        for person, name in enumerate(each.identity_names):
            first = seen.setdefault(name, (number, person))
            if first[0] != number:
                found.append((first, (number, person)))
    return found

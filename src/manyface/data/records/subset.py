"""Some of the people of a reader, as a reader of its own.

Labels of a subset are dense: the people kept, in the order of the full set (sorted by name), become
0, 1, 2, ... The order of the list that chose them plays no part. Memory: 24 bytes per person kept,
nothing per image; 8 bytes per image kept once their order in the storage is asked for.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.data.records.base import GroupedRecords, Int64Array, Records, labels_of
from manyface.data.records.naming import person_name
from manyface.data.records.remote import Location
from manyface.data.records.table import ChosenStrings

_STRIDE = 1 << 20  # records of the full set looked at at once


class SubsetRecords(GroupedRecords):
    """The people `kept` (int64 [K], ascending) of `full`."""

    def __init__(self, full: Records, *, kept: Int64Array) -> None:
        starts = full.first_images
        super().__init__(
            full.path,
            identity_names=ChosenStrings(full.identity_names, kept),
            images_per_identity=(starts[kept + 1] - starts[kept]).tolist(),
        )
        self._full, self._kept = full, kept
        self._shifts: Int64Array = starts[kept] - self.first_images[:-1]

    def read(self, index: int) -> bytes:
        return self._full.read(self._place(index))

    def file_name(self, index: int) -> str:
        return self._full.file_name(self._place(index))

    def describe(self, index: int) -> str:
        return self._full.describe(self._place(index))

    def read_text(self, name: str) -> str:
        return self._full.read_text(name)

    def from_storage(self, places: Int64Array) -> Int64Array:
        return self._in_storage[places]

    def will_read(self, indices: Int64Array) -> None:
        people = labels_of(self.first_images, indices)
        self._full.will_read(indices + self._shifts[people])

    @cached_property
    def _in_storage(self) -> Int64Array:
        """Records in the order of the full set's storage, int64 [N]: it is walked, and whoever is
        not kept is passed over."""
        starts = self._full.first_images
        shifts = np.full(len(starts) - 1, -1, np.int64)  # of each person of the full set
        shifts[self._kept] = self._shifts
        found = []
        for first in range(0, len(self._full), _STRIDE):
            places = np.arange(first, min(first + _STRIDE, len(self._full)))
            records = self._full.from_storage(places)
            shift = shifts[labels_of(starts, records)]
            found.append((records - shift)[shift >= 0])
        return np.concatenate(found)

    @property
    def sources(self) -> Sequence[Records]:
        return [self._full]

    @property
    def index_bytes(self) -> int:
        return self.first_images.nbytes + self._shifts.nbytes

    def _place(self, index: int) -> int:
        person = int(self.first_images.searchsorted(index, side="right")) - 1
        return index + int(self._shifts[person])


def select_records(
    records: Records, *, people: Iterable[str] | None = None, min_images: int = 1
) -> Records:
    """The people of `records` who are listed and have enough images.

    Args:
        people: names to keep; None keeps all. Each must exist. A name given twice counts once.
        min_images: people with fewer images are left out (after the choice by name).
    """
    path = records.path
    chosen = np.ones(len(records.identity_names), dtype=bool)
    if people is not None:
        chosen = _chosen_by_name(records.identity_names, list(people), path)
    chosen &= np.diff(records.first_images) >= min_images
    if not chosen.any():
        raise DataError(
            f"nobody is left of the {len(chosen)} people in {path}: none of the people asked for "
            f"has {min_images} images or more; lower min_images"
        )
    return SubsetRecords(records, kept=np.flatnonzero(chosen))


def _chosen_by_name(
    names: Sequence[str], people: list[str], path: Location
) -> npt.NDArray[np.bool_]:
    wanted = {person_name(name) for name in people}
    if not wanted:
        raise DataError(f"the list of people for {path} is empty; name at least one")
    chosen = np.array([name in wanted for name in names], dtype=bool)
    if chosen.sum() < len(wanted):
        absent = sorted(wanted.difference(names))
        raise DataError(
            f"{len(absent)} of {len(wanted)} listed people are not in {path} "
            f"(first: {', '.join(map(repr, absent[:3]))}); the list may belong to other data"
        )
    return chosen

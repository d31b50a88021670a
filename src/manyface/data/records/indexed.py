"""A store with its index: records grouped by person, read one by one, checked as they are read."""

import logging
from collections.abc import Sequence
from typing import Any

from manyface.base.progress import Progress, no_progress
from manyface.data.records.base import GroupedRecords, Int64Array, Records, Warn
from manyface.data.records.index import RecordIndex, checksum_of, open_index
from manyface.data.records.remote import Location
from manyface.data.records.store import ABOUT_FILES, RecordStore

log = logging.getLogger(__name__)

_NUM_NAMED = 3


class DamagedRecordError(OSError):
    """The bytes of a record are not those that the index has the checksum of."""


class IndexedRecords(GroupedRecords):
    """Records of `store`.

    Args:
        store: of any format.
        index: of it; opened, or built and kept, if left out.
        warn: gets a line where records had to be left out.
    """

    def __init__(
        self,
        store: RecordStore,
        *,
        index: RecordIndex | None = None,
        warn: Warn = log.warning,
        progress: Progress = no_progress,
    ) -> None:
        self.store = store
        self.index = index or open_index(store, progress=progress)
        self.path: Location = store.path
        self.identity_names: Sequence[str] = self.index.identity_names
        self.first_images: Int64Array = self.index.starts
        for text in _what_to_say(self.index):
            warn(f"{store.path}: {text}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the files and the kept index itself; what was left out is known.
        return _reopen, (type(self.store), self.path)

    def read(self, index: int) -> bytes:
        ordinal = self.index.in_storage(index)
        place, size = int(self.index.places[ordinal]), int(self.index.sizes[ordinal])
        try:
            data = self.store.read(place, size)
        except (IndexError, OverflowError):  # of a place that no file has
            raise self.index.damaged("places") from None
        wanted = 0 if self.index.checksums is None else int(self.index.checksums[ordinal])
        if wanted and checksum_of(data) != wanted:
            raise DamagedRecordError(
                "its bytes are not those that its checksum was taken of: the file is damaged"
            )
        return data

    def file_name(self, index: int) -> str:
        """The last part of its name; of a record without a name, its number in the store."""
        ordinal = self.index.in_storage(index)
        if self.index.names is None:
            return str(ordinal)
        return self.index.names[ordinal].rpartition("/")[2]

    def describe(self, index: int) -> str:
        ordinal = self.index.in_storage(index)
        where = self.store.describe(int(self.index.places[ordinal]))
        return f"{where} ({self.index.names[ordinal]})" if self.index.names else where

    def read_text(self, name: str) -> str:
        return self.store.read_text(name)

    def from_storage(self, places: Int64Array) -> Int64Array:
        return self.index.from_storage(places)

    def will_read(self, indices: Int64Array) -> None:
        ordinals = self.index.all_in_storage(indices)
        self.store.will_read(self.index.places[ordinals], self.index.sizes[ordinals])

    @property
    def index_bytes(self) -> int:
        return self.index.num_bytes


def num_numbered(records: Records) -> int:
    """How many records the store has, if they have no names and are called by their numbers in it;
    else 0. Of a view it is the largest of its stores."""
    if isinstance(records, IndexedRecords):
        return len(records) if records.index.names is None else 0
    sources = records.sources if isinstance(records, GroupedRecords) else []
    return max(map(num_numbered, sources), default=0)


def _what_to_say(index: RecordIndex) -> list[str]:
    """What is odd about files, and how many records are left out."""
    faults = list(zip(index.fault_kinds, index.faults, strict=True))
    said = [text for kind, text in faults if kind == ABOUT_FILES]
    if "advice" in index.notes:
        said.append(index.notes["advice"])
    if index.num_faults:
        first = [text for kind, text in faults if kind != ABOUT_FILES][:_NUM_NAMED]
        said.append(f"{index.num_faults} records are left out: {'; '.join(first)}")
    return said


def _reopen(kind: type[RecordStore], path: Location) -> IndexedRecords:
    return IndexedRecords(kind(path), warn=lambda _: None)

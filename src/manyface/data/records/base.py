"""Records: encoded images grouped by person, whatever they are stored in.

Record i of a reader belongs to the person whose range [first_images[p], first_images[p + 1]) holds
i: images of one person are neighbours, people are sorted by name, the images of a person by file
name. So a label costs no memory per image, a subset of people is a list of ranges, and a substitute
for a broken image (another one of the same person) is found without an index.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.data.records.remote import Location

Int64Array = npt.NDArray[np.int64]
Warn = Callable[[str], None]
_STRIDE = 1 << 20


class Records(Protocol):
    """What a reader offers.

    Attributes:
        path: where the data lies.
        identity_names: name of each person, sorted, distinct.
        first_images: int64 [num_identities + 1], first record of each person, then the count.
    """

    @property
    def path(self) -> Location: ...
    @property
    def identity_names(self) -> Sequence[str]: ...
    @property
    def first_images(self) -> Int64Array: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """The encoded image; OSError if it cannot be read. Safe from many threads."""
        ...

    def file_name(self, index: int) -> str:
        """Last part of the record's path."""
        ...

    def describe(self, index: int) -> str:
        """Where the record lies, for messages."""
        ...

    def read_text(self, name: str) -> str:
        """A text file that came with the data (a list of people or pairs); DataError if absent."""
        ...

    def from_storage(self, places: Int64Array) -> Int64Array:
        """Records that lie at `places` of the storage, in its own order: int64 [B] -> int64 [B]."""
        ...

    def will_read(self, indices: Int64Array) -> None:
        """Hint: these records, int64 [B], will be read soon. Safe from many threads."""
        ...


class GroupedRecords(ABC):
    """The part that readers share: the grouping by person."""

    def __init__(
        self, path: Location, *, identity_names: Sequence[str], images_per_identity: Sequence[int]
    ) -> None:
        self.path = path
        self.identity_names = identity_names
        self.first_images: Int64Array = np.concatenate(
            (np.zeros(1, np.int64), np.cumsum(images_per_identity, dtype=np.int64))
        )

    def __len__(self) -> int:
        return int(self.first_images[-1])

    @abstractmethod
    def read(self, index: int) -> bytes: ...

    @abstractmethod
    def file_name(self, index: int) -> str: ...

    @abstractmethod
    def describe(self, index: int) -> str: ...

    @abstractmethod
    def read_text(self, name: str) -> str: ...

    def from_storage(self, places: Int64Array) -> Int64Array:
        return places  # as they are numbered

    def will_read(self, indices: Int64Array) -> None:
        """Of files of their own there is nothing worth asking for."""
        return

    @property
    def sources(self) -> Sequence[Records]:
        """The readers that this one is a view of."""
        return []

    def text_names(self) -> Sequence[str]:
        """Text files that came with the data, where their names are known."""
        return []

    @property
    @abstractmethod
    def index_bytes(self) -> int:
        """Memory of the index, bytes."""


class RecordsView(GroupedRecords):
    """Some records of `full`, in another order or under other people."""

    def __init__(
        self, full: Records, *, identity_names: Sequence[str], images_per_identity: Sequence[int]
    ) -> None:
        super().__init__(
            full.path, identity_names=identity_names, images_per_identity=images_per_identity
        )
        self._full = full

    @property
    def sources(self) -> Sequence[Records]:
        return [self._full]

    @abstractmethod
    def _place(self, index: int) -> int:
        """Where record `index` is in `full`."""

    def read(self, index: int) -> bytes:
        return self._full.read(self._place(index))

    def file_name(self, index: int) -> str:
        return self._full.file_name(self._place(index))

    def describe(self, index: int) -> str:
        return self._full.describe(self._place(index))

    def read_text(self, name: str) -> str:
        return self._full.read_text(name)


def labels_of(first_images: Int64Array, indices: Int64Array) -> Int64Array:
    """Person of each record: int64 [B] -> int64 [B]."""
    return np.searchsorted(first_images, indices, side="right") - 1


def person_of(first_images: Int64Array, index: int) -> int:
    """Person of one record."""
    return int(first_images.searchsorted(index, side="right")) - 1


def walk_storage(records: Records) -> Iterator[tuple[Int64Array, Int64Array]]:
    """All places of the storage, in order, and the records that lie there, a million at a time."""
    for first in range(0, len(records), _STRIDE):
        places = np.arange(first, min(first + _STRIDE, len(records)))
        yield places, records.from_storage(places)


def decode_text(raw: bytes, where: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None


def read_text_file(path: Path) -> str:
    """The text of a file on disk; DataError if it cannot be read."""
    try:
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None

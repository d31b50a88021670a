"""A store: records as a format keeps them, in its own order and with labels of its own kind.

A reader of a format says four things: which files it is made of, what lies where (`scan`, once, the
answer is kept in an index), the bytes at a place, and how to name a place to people. Grouping by
person, dense labels, checksums and caching are the index's (index.py) and the same for all formats.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.progress import Progress
from manyface.data.records.base import read_text_file
from manyface.data.records.naming import person_name
from manyface.data.records.remote import Location

Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]

LARGEST_IMAGE = 1 << 28  # bytes of one encoded image; whatever claims to be larger is damaged
_NUM_KEPT = 1000
ABOUT_FILES = "index-file"  # the kind of fault that costs no record


@dataclass(frozen=True)
class Found:
    """Some records, in the order of the store.

    Attributes:
        places: uint64 [n], where each lies, in the store's own terms.
        sizes: uint32 [n], bytes of each encoded image; 0 where nobody knows before it is read.
        people: whose it is: int64 [n], or n names.
        names: of the n records, where they have any.
    """

    places: UInt64Array
    sizes: UInt32Array
    people: Int64Array | Sequence[str]
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.places)


@dataclass
class Faults:
    """What a scan had to leave out: all counted, the first thousand kept.

    Attributes:
        counts: of each kind, which is one that `manyface data check` reports.
        first, kinds: what it was, and its kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Of those that cost a record, or a stretch of the file."""
        return self.counts.total() - self.counts[ABOUT_FILES]

    def add(self, what: str, *, kind: str = "left-out") -> None:
        self.counts[kind] += 1
        if len(self.first) < _NUM_KEPT:
            self.first.append(what)
            self.kinds.append(kind)


class Collector:
    """Puts records that are found one by one together; the first says what people are.

    If it is known by a number, so must all be, and by a name (any number is one, too) otherwise.
    """

    def __init__(self) -> None:
        self._numbered: bool | None = None
        self._clear()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, place: int, size: int, person: int | str, name: str | None = None) -> None:
        """One more, all with names or none; ValueError if it is too large, or of no person."""
        if size > LARGEST_IMAGE:
            raise ValueError(f"{size} bytes are no image")
        if self._numbered is None:
            self._numbered = isinstance(person, int)
        if self._numbered and not (isinstance(person, int) and 0 <= person < 1 << 63):
            raise ValueError(f"expected a number from 0 on as its label, got {_shown(person)}")
        self._places.append(place)
        self._sizes.append(size)
        self._people.append(person if self._numbered else str(person))
        self._names.append(name)

    def take(self) -> Found:
        """What was added since the last time."""
        names = None if None in self._names else self._names
        people = np.array(self._people, np.int64) if self._numbered else self._people
        places, sizes = np.array(self._places, np.uint64), np.array(self._sizes, np.uint32)
        self._clear()
        return Found(places, sizes, people, names)

    def _clear(self) -> None:
        self._places: list[int] = []
        self._sizes: list[int] = []
        self._people: list[Any] = []
        self._names: list[Any] = []


class NamesOfNumbers:
    """Names that come with numbered people, as long as each number has one and each name one."""

    def __init__(self) -> None:
        self._name_of: dict[int, str] | None = {}

    def learn(self, number: int, name: str | None) -> None:
        """One more record."""
        if self._name_of is not None and (
            not name or self._name_of.setdefault(number, name) != name
        ):
            self._name_of = None

    def of(self, numbers: Int64Array) -> list[str] | None:
        """Of the people `numbers`, int64 [P]; None if not all have their own."""
        if not self._name_of:
            return None
        names = [person_name(self._name_of[number]) for number in numbers.tolist()]
        return names if len(set(names)) == len(names) else None


def as_label(label: object) -> int | str:
    """Whole numbers are labels, also as text; other text is a name; else ValueError."""
    if isinstance(label, int) and not isinstance(label, bool):
        return label
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"expected a label, a number or a name, got {_shown(label)}")
    is_number = label.isascii() and label.isdigit() and len(label) < 19
    return int(label) if is_number else person_name(label)


def _shown(label: object) -> str:
    if not isinstance(label, str | int | float):
        return f"a {type(label).__name__}"
    text = repr(label)
    return text if len(text) <= 60 else f"{text[:60]}..."


class RecordStore(ABC):
    """Records of one format. A store is made from its path alone: other processes make it again.

    Attributes:
        path: what the user named.
        kind: of the format, one word.
    """

    kind: str

    def __init__(self, path: Location) -> None:
        self.path = path

    @classmethod
    @abstractmethod
    def recognise(cls, path: Path, head: bytes) -> "RecordStore | None":
        """The store of `path` if that is of this format: a file (`head`: its first 512 bytes) or a
        folder that holds the format's files (`head`: empty)."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the data does: names, sizes and times of its files."""

    @abstractmethod
    def scan(self, faults: Faults, progress: Progress) -> Iterator[Found]:
        """Every record once, a few thousand at a time; `faults` gets what cannot be one."""

    @abstractmethod
    def read(self, place: int, size: int) -> bytes:
        """The encoded image; OSError if it cannot be read. Safe from many threads."""

    def will_read(self, places: UInt64Array, sizes: UInt32Array) -> None:
        """Hint: the records there, [B] each, will be read soon. Safe from many threads."""
        return

    @abstractmethod
    def describe(self, place: int) -> str:
        """Where a record lies, for messages."""

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        """Names of the people that `scan` gave as `numbers` [P]; None where they have none."""
        return None

    def call_people(self, names: Sequence[str]) -> Sequence[str]:
        """What the people are called that `scan` gave as `names`, sorted; as many."""
        return names

    def read_text(self, name: str) -> str:
        """A text file that came with the data; DataError if absent."""
        if not isinstance(self.path, Path):
            raise DataError(f"no texts are read at {self.path}; looked for {name!r}")
        folder = self.path if self.path.is_dir() else self.path.parent
        return read_text_file(folder / name)

    def notes(self) -> dict[str, str]:
        """What else the scan learned, to be kept in the index."""
        return {}


def fingerprint_of(paths: Sequence[Path]) -> str:
    """Names, sizes and times of modification of files, as text."""
    facts = []
    for path in paths:
        status = path.stat()
        facts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return "; ".join(facts)

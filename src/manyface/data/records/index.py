"""The index of a store: what lies where, whose it is, and the records of every person.

Built once from a scan and kept in a file beside the data, or in the user's cache folder where that
cannot be written. It is memory-mapped: opening it costs milliseconds whatever its size, all
processes of a machine share its pages, and strings are read when they are asked for. Per record:

    places     U64  where it lies, in the store's own terms     8 bytes
    sizes      U32  of the encoded image                        4
    labels     U32  dense                                       4
    checksums  U32  xxh3 of the bytes, lower half; optional     4
    ranks      U32  its number when grouped by person           4

and for the people `starts` (I64 [P + 1]) and `order` (U32 [N], the records person by person): 0.48
GB for 100M images of 10M people. Where records lie grouped already, `ranks` and `order` are left
out. From 2^32 records on, the latter two are U64. Names of people and records are a text and the
ends of its parts. The file's layout is that of index_file.py; `docs/formats/index.md` has the rest.

An index belongs to files of one name, size and time. It is written under another name and renamed;
processes that want one at the same time wait for the first of them.
"""

import errno
import fcntl
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from manyface.base.errors import DataError
from manyface.base.files import new_file, open_lock
from manyface.base.progress import Progress, no_progress
from manyface.data.records.index_file import (
    Arrays,
    check_arrays,
    map_arrays,
    write_arrays,
    wrong_hash,
)
from manyface.data.records.naming import check_distinct
from manyface.data.records.remote import Location
from manyface.data.records.store import (
    Faults,
    Int64Array,
    RecordStore,
    UInt32Array,
)
from manyface.data.records.table import NumberNames, StringTable

SUFFIX = ".manyface-index"
_FORMAT = "manyface-index-1"


class RecordIndex:
    """The index in memory or mapped from a file.

    Attributes:
        places: uint64 [N], sizes: uint32 [N], labels: uint32 [N], in storage order.
        checksums: uint32 [N], or None where nobody has read the records yet.
        starts: int64 [P + 1], first record of each person when grouped, then N.
        num_faults, faults: what the scan left out, and the first of it.
        path: of the file that it is mapped from, if it is.
    """

    def __init__(
        self, arrays: Arrays, notes: Mapping[str, str], *, path: Path | None = None
    ) -> None:
        self._arrays, self.notes, self.path = arrays, dict(notes), path
        self.places, self.sizes = arrays["places"], arrays["sizes"]
        self.labels, self.starts = arrays["labels"], arrays["starts"]
        self.checksums = arrays.get("checksums")
        self._order, self._ranks = arrays.get("order"), arrays.get("ranks")
        self.identity_names = _names(arrays, "people") or NumberNames(arrays["numbers"])
        self.names = _names(arrays, "names")

    def __len__(self) -> int:
        return len(self.places)

    @property
    def num_faults(self) -> int:
        return int(self.notes.get("num_faults", "0"))

    @property
    def faults(self) -> list[str]:
        return list(json.loads(self.notes.get("faults", "[]")))

    @property
    def fault_kinds(self) -> list[str]:
        """Of each of `faults`."""
        return list(json.loads(self.notes.get("fault_kinds", "[]")))

    @property
    def fault_counts(self) -> dict[str, int]:
        """How many of each kind there are."""
        return dict(json.loads(self.notes.get("fault_counts", "{}")))

    @property
    def numbers(self) -> Int64Array | None:
        """The labels that people have in the store, int64 [P]; None where they have names only."""
        return self._arrays.get("numbers")

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def in_storage(self, record: int) -> int:
        """Where in the storage order the `record` lies; DataError if that is damaged."""
        if self._order is None or self._ranks is None:
            return record
        ordinal = int(self._order[record])
        # The two are inverse to each other: a bit that has flipped in either is noticed.
        if ordinal >= len(self) or self._ranks[ordinal] != record:
            raise self.damaged("order")
        return ordinal

    def all_in_storage(self, records: Int64Array) -> Int64Array:
        """`in_storage` of several, int64 [B]; where it is damaged, somewhere."""
        if self._order is None:
            return records
        return np.minimum(self._order[records], len(self) - 1).astype(np.int64)

    def from_storage(self, ordinals: Int64Array) -> Int64Array:
        """Records by their ordinals in the storage: int64 [B] -> int64 [B]; DataError as above."""
        if self._order is None or self._ranks is None:
            return ordinals
        records = self._ranks[ordinals].astype(np.int64)
        if len(records) and not 0 <= records.min() <= records.max() < len(self):
            raise self.damaged("ranks")
        return records

    def verify(self) -> None:
        """DataError if an array of the file is not what was written; reads all of it."""
        if self.path is not None and (name := wrong_hash(self._arrays, self.notes)) is not None:
            raise self.damaged(name)

    def damaged(self, name: str) -> DataError:
        """What to raise where the array `name` says what cannot be."""
        where = "the index" if self.path is None else self.path
        return DataError(f"{where} is damaged ({name}); delete it, it is made again")

    def with_checksums(self, checksums: UInt32Array) -> "RecordIndex":
        """The same, with `checksums` [N] in storage order."""
        return RecordIndex({**self._arrays, "checksums": checksums}, self.notes)

    def save(self, path: Path) -> None:
        """Write the file `path` whole or not at all; OSError if it cannot be."""
        with new_file(path) as file:
            write_arrays(file, self._arrays, self.notes)

    @classmethod
    def load(cls, path: Path) -> "RecordIndex":
        """Map the file `path`; ValueError if it is none or damaged, OSError if unreadable."""
        arrays, notes = map_arrays(path)
        if notes.get("format") != _FORMAT:
            raise ValueError("not an index of this version")
        check_arrays(arrays, notes)
        return cls(arrays, notes, path=path)


def checksum_of(data: bytes) -> int:
    """32 bits of the bytes of a record."""
    return xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF


def open_index(store: RecordStore, *, progress: Progress = no_progress) -> RecordIndex:
    """The kept index of `store`; built, and kept where possible, if there is none that fits."""
    for path in index_paths(store.path):
        if (index := _load_fitting(path, store)) is not None:
            return index
    built: RecordIndex | None = None
    for path in index_paths(store.path):
        with suppress(OSError), _one_at_a_time(path):
            if built is None and (index := _load_fitting(path, store)) is not None:
                return index
            built = built or build_index(store, progress=progress)
            built.save(path)
            return RecordIndex.load(path)
    return built or build_index(store, progress=progress)


def keep_index(index: RecordIndex, store: RecordStore) -> Path | None:
    """Save `index` as that of `store`; where, or None if no place can be written, or if the files
    are no longer those that it was made of."""
    if index.notes.get("fingerprint") != store.fingerprint():
        return None
    for path in index_paths(store.path):
        with suppress(OSError), _one_at_a_time(path):
            index.save(path)
            return path
    return None


def index_paths(location: Location) -> list[Path]:
    """Where the index of the data may lie: beside it, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manyface"
    beside: list[Path] = []
    place: Location = location
    if isinstance(location, Path):
        path = location.absolute()
        beside, place = [path.parent / (path.name + SUFFIX)], path.resolve()
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    return [*beside, cache / f"{location.name[:100]}-{digest}{SUFFIX}"]


def build_index(store: RecordStore, *, progress: Progress = no_progress) -> RecordIndex:
    """Scan the store; DataError if there is no record in it, it cannot be read, or it changes."""
    faults = Faults()
    draft = _Draft()
    try:
        fingerprint = store.fingerprint()
        for found in store.scan(faults, progress):
            draft.add(found.places, found.sizes, found.people, found.names)
        changed = store.fingerprint() != fingerprint
    except OSError as error:
        where = error.filename or store.path
        raise DataError(f"cannot read {where}: {error.strerror or error}") from None
    if changed:
        raise DataError(f"{store.path} changed while it was read; begin again when it is complete")
    if not draft.count:
        first = f"; the first thing left out: {faults.first[0]}" if faults.first else ""
        raise DataError(f"{store.path} holds no image that could be read{first}")
    notes = {
        "format": _FORMAT,
        "kind": store.kind,
        "fingerprint": fingerprint,
        "num_faults": str(faults.count),
        "faults": json.dumps(faults.first),
        "fault_kinds": json.dumps(faults.kinds),
        "fault_counts": json.dumps(faults.counts),
        **store.notes(),
    }
    arrays = draft.arrays(store)
    if "numbers" in arrays:
        names = store.person_names(arrays["numbers"])
        if names is not None:
            arrays |= StringTable(names).parts("people")
    return RecordIndex(arrays, notes)


class _Draft:
    """Collects what a scan finds."""

    def __init__(self) -> None:
        self.count = 0
        self._places: list[npt.NDArray[np.uint64]] = []
        self._sizes: list[UInt32Array] = []
        self._people: list[Int64Array] = []
        self._numbers: dict[str, int] = {}  # of people with names, in order of appearance
        self._names = bytearray()
        self._ends: list[Int64Array] = []

    def add(
        self,
        places: npt.NDArray[np.uint64],
        sizes: UInt32Array,
        people: Int64Array | Sequence[str],
        names: Sequence[str] | None,
    ) -> None:
        self.count += len(places)
        self._places.append(places)
        self._sizes.append(sizes)
        if not isinstance(people, np.ndarray):
            numbers = self._numbers
            people = np.array([numbers.setdefault(name, len(numbers)) for name in people], np.int64)
        self._people.append(people)
        if names is not None:
            encoded = [os.fsencode(name) for name in names]
            lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
            self._ends.append(len(self._names) + np.cumsum(lengths))
            self._names += b"".join(encoded)

    def arrays(self, store: RecordStore) -> Arrays:
        numbers, labels = distinct(np.concatenate(self._people))
        self._people.clear()
        arrays: Arrays = {
            "places": np.concatenate(self._places),
            "sizes": np.concatenate(self._sizes),
        }
        self._places.clear()
        self._sizes.clear()
        if self._numbers:
            labels = self._sort_names(labels, arrays, store)
        else:
            arrays["numbers"] = numbers
        arrays |= group(labels, len(numbers))
        if self._ends:
            ends = np.concatenate([np.zeros(1, np.int64), *self._ends])
            arrays["names.text"] = np.frombuffer(self._names, np.uint8)
            arrays["names.ends"] = ends
        return arrays

    def _sort_names(self, labels: UInt32Array, arrays: Arrays, store: RecordStore) -> UInt32Array:
        names = sorted(self._numbers)
        called = store.call_people(names)
        check_distinct(called, str(store.path))
        arrays |= StringTable(called).parts("people")
        rank = np.empty(len(names), np.uint32)
        rank[[self._numbers[name] for name in names]] = np.arange(len(names), dtype=np.uint32)
        return rank[labels]


def distinct(people: Int64Array) -> tuple[Int64Array, UInt32Array]:
    """The numbers that occur in `people` [N], ascending, and which of them each one is, [N]."""
    largest = int(people.max())
    if people.min() < 0 or largest > 4 * len(people) + (1 << 20):
        numbers, labels = np.unique(people, return_inverse=True)
        return numbers, labels.astype(np.uint32)
    # Dense enough to be counted: 12 times as fast as sorting them.
    present = np.zeros(largest + 1, bool)
    present[people] = True
    return np.flatnonzero(present), (np.cumsum(present, dtype=np.uint32) - np.uint32(1))[people]


def group(labels: UInt32Array, num_people: int) -> Arrays:
    """`labels` and, from them, starts, order and ranks (the latter if they are not plain)."""
    starts = np.zeros(num_people + 1, np.int64)
    np.cumsum(np.bincount(labels, minlength=num_people), out=starts[1:])
    arrays: Arrays = {"labels": labels, "starts": starts}
    if len(labels) and (labels[1:] < labels[:-1]).any():
        width = np.uint32 if len(labels) < 1 << 32 else np.uint64
        order = np.argsort(labels, kind="stable").astype(width)
        arrays["order"] = order
        arrays["ranks"] = np.empty_like(order)
        arrays["ranks"][order] = np.arange(len(order), dtype=width)
    return arrays


def _names(arrays: Arrays, key: str) -> StringTable | None:
    if f"{key}.text" not in arrays:
        return None
    return StringTable.from_parts(arrays[f"{key}.text"], arrays[f"{key}.ends"])


def _load_fitting(path: Path, store: RecordStore) -> RecordIndex | None:
    try:
        index = RecordIndex.load(path)
        fits = index.notes.get("fingerprint") == store.fingerprint()
        index.num_faults, index.faults, index.fault_kinds, index.fault_counts  # noqa: B018  readable
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # absent, damaged, or of another version: it is built anew
    return index if fits and index.notes.get("kind") == store.kind else None


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Others that build the same index wait; where a file system knows no locks, they do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.stat().st_mode & 0o222:  # read-only, though root could write
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    lock = path.with_name(path.name + ".lock")
    descriptor = open_lock(lock)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for draft in path.parent.glob(f".{glob.escape(path.name)}-*"):  # of a killed process
                draft.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)

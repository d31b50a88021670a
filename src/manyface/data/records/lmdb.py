"""LMDB: a folder with `data.mdb`, or one file, whose values are images in one of several manners.

    FFC, Caffe      value = protobuf Datum: field 4 (FFC's other definition: 1) the image, 5 label,
                    7 "encoded"; `NAME_kv.txt` in the folder or beside it has lines "key label"
    ImageFolder     value = pickled (image, label); `__keys__`, `__len__`
    CRNN            `image-000000001` = image, `label-000000001` = text, `num-samples`
    plain           `person/name.jpg` = image

What a value is shows in its first bytes. Labels come from the list of keys where there is one, else
from the value, else from the folder in the key. `train.lst`, as im2rec writes it, gives names where
keys are its numbers. Images are read in place (btree.py); only the writer needs the library.

Written are FFC's: keys "0000000000", "0000000001", ... in the order of the records, Caffe's Datum,
`NAME_kv.txt`, and `NAME.lst` with the names.
"""

import errno
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xxhash

from manyface.base.errors import DataError, to_install
from manyface.base.progress import Progress
from manyface.data.records.btree import Entry, Tree, is_lmdb
from manyface.data.records.datum import parse_datum, write_datum
from manyface.data.records.files import PlainFile, only_file
from manyface.data.records.naming import is_hidden, person_name, suffix_of_content
from manyface.data.records.packing_list import CONTRADICTS, PackingList, list_line, named_by
from manyface.data.records.store import (
    ABOUT_FILES,
    Collector,
    Faults,
    Found,
    Int64Array,
    RecordStore,
    as_label,
    fingerprint_of,
)
from manyface.data.records.table import StringTable
from manyface.data.records.writer import (
    DraftFile,
    Position,
    RecordWriter,
    cut_off,
    new_folder,
)
from manyface.data.unpickle import PickledArray, unpickle

_CHUNK = 1 << 14
_HEAD = 64
_LONGEST_LABEL = 1 << 10
_DATA = "data.mdb"
_PICKLED = 1 << 63  # a place whose value is a pickle that holds the image
_NUM_SAMPLES, _IMAGE, _LABEL = b"num-samples", b"image-", b"label-"


class LmdbStore(RecordStore):
    """The records of the folder `path`, or of the file itself."""

    kind = "lmdb"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.data_file = path / _DATA if path.is_dir() else path
        self._file = PlainFile(self.data_file)
        self._tree = Tree(self._file)
        self.key_file = _key_file(path)
        self.list_file = _list_file(path)
        self._list: PackingList | None = None

    @classmethod
    def recognise(cls, path: Path, head: bytes) -> "LmdbStore | None":
        if path.is_dir():
            return cls(path) if (path / _DATA).is_file() else None
        if not is_lmdb(head):
            return None
        return cls(path.parent if path.name == _DATA else path)

    def fingerprint(self) -> str:
        extra = [file for file in (self.key_file, self.list_file) if file is not None]
        return fingerprint_of([self.data_file, *extra])

    def scan(self, faults: Faults, progress: Progress) -> Iterator[Found]:
        self._list = None if self.list_file is None else PackingList.read(self.list_file)
        parts = self._parts(faults, progress)
        if self._list is None or self.list_file is None:
            yield from parts
            return
        fits, named = named_by(self._list, ((_compact(part), _as_keys(part)) for part in parts))
        if not fits:
            faults.add(f"{self.list_file.name} {CONTRADICTS}", kind=ABOUT_FILES)
            self._list = None
        yield from named

    def _parts(self, faults: Faults, progress: Progress) -> Iterator[Found]:
        """The records as they lie, named by their keys."""
        if self._tree.get(_NUM_SAMPLES) is not None:
            records = self._numbered(faults)
        else:
            labels = None if self.key_file is None else KeyLabels(self.key_file)
            records = self._keyed(labels, faults)
        found, done = Collector(), 0
        for place, size, person, key in records:
            try:
                found.add(place, size, person, os.fsdecode(key))
            except ValueError as error:
                faults.add(f"{key[:60]!r}: {error}")
            if len(found) == _CHUNK:
                done += _CHUNK
                yield found.take()
                progress(done, self._tree.num_entries)
        if len(found):
            yield found.take()

    def read(self, place: int, size: int) -> bytes:
        data = self._file.read(place & ~_PICKLED, size)
        if not place & _PICKLED:
            return data
        try:
            return _unpickled(data)[0]
        except ValueError as error:
            raise OSError(str(error)) from None

    def describe(self, place: int) -> str:
        return f"{self.data_file} at byte {place & ~_PICKLED}"

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        return None if self._list is None else self._list.person_names(numbers)

    def _keyed(
        self, labels: "KeyLabels | None", faults: Faults
    ) -> Iterator[tuple[int, int, int | str, bytes]]:
        """Place, size, person and key of each record."""
        for entry in self._tree.walk(faults):
            if entry.key.startswith(b"__"):
                continue  # `__keys__`, `__len__`
            try:
                place, size, label = self._look(entry)
                if labels is not None:
                    label = labels.get(entry.key)
                yield place, size, _person_of_key(entry.key) if label is None else label, entry.key
            except (ValueError, OSError) as error:
                faults.add(f"{entry.key[:60]!r}: {error}")

    def _numbered(self, faults: Faults) -> Iterator[tuple[int, int, int | str, bytes]]:
        """The same of the second manner: images and labels are two lists of equal numbers."""
        labels = _within(self._tree.walk(faults, start=_LABEL), _LABEL)
        label = next(labels, None)
        for image in _within(self._tree.walk(faults, start=_IMAGE), _IMAGE):
            number = image.key[len(_IMAGE) :]
            while label is not None and label.key[len(_LABEL) :] < number:
                label = next(labels, None)
            if label is None or label.key[len(_LABEL) :] != number:
                faults.add(f"{image.key[:60]!r} has no label")
                continue
            try:
                text = self._file.read(label.offset, min(label.size, _LONGEST_LABEL))
                yield image.offset, image.size, as_label(os.fsdecode(text)), image.key
            except (ValueError, OSError) as error:
                faults.add(f"{label.key[:60]!r}: {error}")

    def _look(self, entry: Entry) -> tuple[int, int, int | str | None]:
        """Place and size of the image in a value, and the label in it; ValueError if none."""
        head = self._file.read(entry.offset, min(entry.size, _HEAD))
        if suffix_of_content(head):
            return entry.offset, entry.size, None
        if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
            _, label = _unpickled(self._file.read(entry.offset, entry.size))
            return entry.offset | _PICKLED, entry.size, label
        datum = parse_datum(self._file, entry.offset, entry.size)
        start = self._file.read(datum.offset, min(datum.size, _HEAD))
        if not datum.encoded and not suffix_of_content(start):
            raise ValueError("it holds bare pixels; only encoded images (JPEG, PNG, ...) are read")
        return datum.offset, datum.size, datum.label


class KeyLabels:
    """Labels by key, of a file with lines "key label": 16 bytes per record.

    Keys are known by 64 bits of their hash: that two of 17 million share them has odds of 1e-5.

    Raises:
        DataError: it cannot be read, or gives a key two labels.
    """

    def __init__(self, path: Path) -> None:
        hashes, labels, number = array("Q"), array("q"), 0
        try:
            with path.open("rb") as lines:
                for line in lines:
                    number += 1
                    if line.strip():
                        key, label = line.rsplit(maxsplit=1)
                        hashes.append(xxhash.xxh3_64_intdigest(key.strip()))
                        labels.append(int(label))
        except (ValueError, OverflowError):
            raise DataError(f"{path}, line {number}: expected key, blank, label") from None
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        keys, found = np.array(hashes, np.uint64), np.array(labels, np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._labels = keys[order], found[order]
        twice = self._keys[1:] == self._keys[:-1]
        contradicting = np.flatnonzero(twice & (self._labels[1:] != self._labels[:-1]))
        if len(contradicting):
            first = int(contradicting[0])
            raise DataError(
                f"{path} gives {len(contradicting)} keys two labels (first: "
                f"{self._labels[first]} in entry {order[first] + 1}, {self._labels[first + 1]} in "
                f"entry {order[first + 1] + 1}); remove one of the two lines"
            )

    def get(self, key: bytes) -> int:
        """The label of `key`; ValueError if it has none."""
        digest = np.uint64(xxhash.xxh3_64_intdigest(key))
        place = int(self._keys.searchsorted(digest))
        if place == len(self._keys) or self._keys[place] != digest:
            raise ValueError("its key is not in the list of labels")
        return int(self._labels[place])


def _compact(found: Found) -> Found:
    return replace(found, names=StringTable(found.names or ()))


def _as_keys(found: Found) -> Int64Array | None:
    """The keys as numbers; None if they are none."""
    try:
        return np.array([int(key) for key in found.names or ()], np.int64)
    except (ValueError, OverflowError):
        return None


def _within(entries: Iterator[Entry], prefix: bytes) -> Iterator[Entry]:
    for entry in entries:
        if not entry.key.startswith(prefix):
            return
        yield entry


def _person_of_key(key: bytes) -> str:
    folder, _, name = os.fsdecode(key).rpartition("/")
    if not folder or is_hidden(name):
        raise ValueError("it has no label, and its key no folder")
    return person_name(folder)


def _unpickled(value: bytes) -> tuple[bytes, int | str]:
    """Image and label of a pickled value; ValueError if it is something else. Nothing is run."""
    try:
        match unpickle(value, "its value"):
            case [bytes() as image, label, *_]:
                return image, as_label(label)
            case [PickledArray(code="u1", data=image), label, *_]:
                return image, as_label(label)
    except DataError as error:
        raise ValueError(str(error)) from None
    raise ValueError("a pickle that is no pair of image and label")


def _key_file(path: Path) -> Path | None:
    beside = [path.with_name(f"{stem}_kv.txt") for stem in (path.name, path.stem)]
    if path.is_dir():
        within = only_file(path, "_kv.txt", preferred=f"{path.stem}_kv.txt")
        beside = [within, *beside] if within else beside
    return next((file for file in beside if file.is_file()), None)


def _list_file(path: Path) -> Path | None:
    if path.is_dir():
        return only_file(path, ".lst", preferred=f"{path.stem}.lst")
    file = path.with_suffix(".lst")
    return file if file.is_file() else None


class LmdbWriter(RecordWriter):
    """Writes the folder `path`; needs the library.

    Raises:
        DataError: the library is missing, or something is there already.
    """

    _PENDING_BYTES = 32 << 20

    def __init__(self, path: Path, *, identity_names: Sequence[str]) -> None:
        super().__init__(path, identity_names=identity_names)
        self._lmdb = _library()
        self._folder = new_folder(path)
        self._count, self._bytes = 0, 0
        self._pending: list[tuple[bytes, bytes]] = []
        suffixes = ("_kv.txt", ".lst")
        self._keys, self._names = (DraftFile(self._folder / (path.stem + s)) for s in suffixes)
        with self._as_os_errors():
            size = 2 * self._PENDING_BYTES
            self._database: Any = self._lmdb.open(str(self._folder), map_size=size)

    def add(self, image: bytes, *, person: int, name: str) -> None:
        key = b"%010d" % self._count
        self._pending.append((key, write_datum(image, person)))
        self._keys.write(b"%s %d\n" % (key, person))
        self._names.write(list_line(self._count, person, self.identity_names[person], name))
        self._count += 1
        self._bytes += len(image)
        if self._bytes >= self._PENDING_BYTES:
            self._flush()

    def commit(self) -> Position:
        self._flush()
        return {"count": self._count, "keys": self._keys.sync(), "names": self._names.sync()}

    def resume(self, position: Position) -> None:
        self._count = position["count"]
        self._keys.cut(position["keys"])
        self._names.cut(position["names"])
        with self._as_os_errors(), self._database.begin(write=True) as transaction:
            if transaction.stat()["entries"] < self._count:
                raise cut_off(self._folder)
            with transaction.cursor() as cursor:
                there = cursor.set_range(b"%010d" % self._count)
                while there:
                    there = cursor.delete()

    def finish(self) -> None:
        self._flush()
        self._database.close()
        self._keys.finish()
        self._names.finish()
        (self._folder / "lock.mdb").unlink(missing_ok=True)
        self._folder.replace(self.path)

    def close(self) -> None:
        self._keys.close()
        self._names.close()
        self._database.close()

    def _flush(self) -> None:
        """Put what is pending as one transaction, with more room where it does not fit."""
        while self._pending:
            try:
                with self._as_os_errors(), self._database.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value, append=True)
            except self._lmdb.MapFullError:
                size = self._database.info()["map_size"]
                self._database.set_mapsize(max(size * 5 // 4, size + 4 * self._PENDING_BYTES))
                continue
            self._pending.clear()
            self._bytes = 0

    @contextmanager
    def _as_os_errors(self) -> Iterator[None]:
        """The library has errors of its own, and calls a full disk one of input and output."""
        try:
            yield
        except self._lmdb.MapFullError:
            raise
        except self._lmdb.Error as error:
            text = f"{error}; the disk may be full"
            raise OSError(errno.EIO, text, str(self._folder)) from error


def _library() -> ModuleType:
    try:
        import lmdb
    except ImportError:
        raise DataError(f"writing LMDB needs the package lmdb; run: {to_install('lmdb')}") from None
    return lmdb

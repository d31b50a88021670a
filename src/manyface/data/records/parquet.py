"""Parquet with an image column, as Hugging Face keeps image sets; by pyarrow.

    image   struct {bytes, path}, or bytes (also called img, jpg, png, ...)
    label   whole number or text (also called identity, person, cls, ...); without such a column,
            the folder in the path

One file, or the files of a folder: `*.parquet` or `data/*.parquet`, of which those of the split
"train" count if there are such. Names of numbered people come from the schema's "huggingface"
features (ClassLabel), else from the folders of the paths, if each has one.

Parquet is no random access: a row comes with its row group. Labels and paths are read once, for the
index; sizes of images are not known before they are read, which would take all of the data. Reading
keeps row groups in memory up to a budget; of one that is larger, the rows around the last that was
asked for, so that it is read a few times from front to back, but once for every image at random,
which is warned of. Written are groups of 64 rows: to read one of 64 images
of 5 kB takes 0.09 ms, of 256 0.2 ms, of 1,000 1 ms (from the page cache, one core).
"""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manyface.base.errors import DataError, one_line
from manyface.base.progress import Progress
from manyface.data.records.naming import people_of_folders, person_name
from manyface.data.records.parquet_columns import Columns, class_names, library
from manyface.data.records.store import (
    Faults,
    Found,
    Int64Array,
    NamesOfNumbers,
    RecordStore,
    UInt64Array,
    fingerprint_of,
)

_MAGIC = b"PAR1"
_ROW_BITS, _GROUP_BITS = 24, 24  # of a place, then the number of the file
_CACHE_BYTES = 256 << 20
_SLICE_BYTES = 64 << 20  # that are kept of a row group that is larger than the cache
_MOST_OPEN = 64
_LARGEST_GROUP = 1 << 31
_LONGEST_TEXT = 64 << 20  # of names and of the list of row groups in a file's footer


class ParquetStore(RecordStore):
    """The rows of the file `path`, or of the files in it.

    Raises:
        DataError: pyarrow is missing, or there is no column of images, or of labels.
    """

    kind = "parquet"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._arrow, self._parquet = library()
        self.files = _files(path)
        self._opened = _Opened()
        schema = self._open(0).schema_arrow
        self._columns = Columns.of(schema, self._arrow.types, self.files[0])
        self.class_names = class_names(schema, self._columns.label)
        self._folders: NamesOfNumbers | None = None
        self._largest_group = 0

    @classmethod
    def recognise(cls, path: Path, head: bytes) -> "ParquetStore | None":
        if path.is_dir():
            return cls(path) if _files(path) else None
        return cls(path) if head.startswith(_MAGIC) else None

    def call_people(self, names: Sequence[str]) -> Sequence[str]:
        if self._columns.label is not None:
            return names
        return people_of_folders(names)

    def fingerprint(self) -> str:
        return fingerprint_of(self.files)

    def scan(self, faults: Faults, progress: Progress) -> Iterator[Found]:
        self._folders = NamesOfNumbers()
        self._largest_group = 0
        done = 0
        for number, file in enumerate(self.files):
            try:
                for found in self._scan_file(number, faults):
                    yield found
                    done += len(found)
                    progress(done, None)
            except (self._arrow.ArrowException, ValueError, OSError, DataError) as error:
                faults.add(f"{file.name} cannot be read further: {one_line(error)}")

    def read(self, place: int, size: int) -> bytes:
        group, row = place >> _ROW_BITS, place & (1 << _ROW_BITS) - 1
        rows = self._images(group, row)
        data: bytes | None = rows.images[row - rows.first].as_py()
        if data is None:
            raise OSError("the row holds no image, at most the path of one")
        return data

    def notes(self) -> dict[str, str]:
        if self._largest_group <= _CACHE_BYTES:
            return {}
        size = f"{self._largest_group / 2**20:,.0f} MiB"
        return {
            "advice": f"row groups of up to {size}, more than is kept in memory: at random each "
            "image costs the reading of one; write the set anew with small ones: manyface data "
            f"convert {self.path} NEW.parquet"
        }

    def describe(self, place: int) -> str:
        file, group, row = _parts(place)
        return f"{self.files[file]}, row group {group}, row {row}"

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        names = self.class_names
        if names is not None and len(numbers) and int(numbers[-1]) < len(names):
            return [names[number] for number in numbers.tolist()]
        return None if self._folders is None else self._folders.of(numbers)

    def _scan_file(self, number: int, faults: Faults) -> Iterator[Found]:
        file = self._open(number)
        columns = Columns.of(file.schema_arrow, self._arrow.types, self.files[number])
        if columns != self._columns:
            raise ValueError("it has other columns than the first file")
        wanted = [name for name in (columns.label, columns.path) if name is not None]
        for group in range(file.metadata.num_row_groups):
            where = f"{self.files[number].name}, row group {group}"
            try:
                self._check_group(file, number, group)
                table = file.read_row_group(group, columns=wanted, use_threads=False)
                yield self._found(table, _place(number, group, 0), where, faults)
            except (self._arrow.ArrowException, ValueError, OSError) as error:
                faults.add(f"{where}: {one_line(error)}")

    def _check_group(self, file: Any, number: int, group: int) -> None:
        """ValueError if it is more than can be counted, or than is read at once."""
        # Not `about.column(i)`: what it throws of a damaged file ends the process (pyarrow 26).
        about = file.metadata.row_group(group)
        if number >> 64 - _ROW_BITS - _GROUP_BITS or group >> _GROUP_BITS:
            raise ValueError("more files or row groups than can be counted")
        if about.num_rows >> _ROW_BITS or about.total_byte_size > _LARGEST_GROUP:
            raise ValueError(
                f"{about.num_rows} rows of {about.total_byte_size} bytes in one row group; write "
                "the set anew with smaller ones"
            )
        self._largest_group = max(self._largest_group, about.total_byte_size)

    def _found(self, table: Any, place: int, where: str, faults: Faults) -> Found:
        count = table.num_rows
        places: UInt64Array = np.uint64(place) + np.arange(count, dtype=np.uint64)
        paths = self._paths(table)
        people, known = self._people(table, paths)
        for row in np.flatnonzero(~known).tolist():
            faults.add(f"{where}, row {row}: no label")
        kept = np.flatnonzero(known)
        if paths is not None:
            paths = [paths[row] for row in kept.tolist()]
        if isinstance(people, np.ndarray):
            people = people[kept]
            if paths is not None and self._folders is not None:
                for label, path in zip(people.tolist(), paths, strict=True):
                    self._folders.learn(label, path.rpartition("/")[0])
        else:
            people = [people[row] for row in kept.tolist()]
        return Found(places[kept], np.zeros(len(kept), np.uint32), people, paths)

    def _paths(self, table: Any) -> list[str] | None:
        if self._columns.path is None:
            return None
        rows = table.column(self._columns.image).to_pylist()
        return [row["path"] or "" if row else "" for row in rows]

    def _people(self, table: Any, paths: list[str] | None) -> tuple[Any, Any]:
        """Whose each row is, int64 [n] or names; and bool [n], whether that is known."""
        if self._columns.label is None:
            names = [path.rpartition("/")[0] for path in paths or []]
        else:
            column = table.column(self._columns.label)
            if not self._columns.has_names:
                return _numbers(column)
            names = [person_name(name) if name else "" for name in column.to_pylist()]
        return names, np.array([bool(name) for name in names], bool)

    def _open(self, number: int) -> Any:
        """A reader of the file; DataError if it is none."""
        try:
            return self._parquet.ParquetFile(
                str(self.files[number]),
                thrift_string_size_limit=_LONGEST_TEXT,
                thrift_container_size_limit=_LONGEST_TEXT,
            )
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"cannot read {self.files[number]}: {one_line(error)}") from None

    def _images(self, group: int, row: int) -> "_Rows":
        """Images of a row group, `group` with the number of its file, of which `row` is one."""
        opened = self._opened = self._opened.here()
        rows = opened.get(group, row)
        if rows is None:
            number = group >> _GROUP_BITS
            reader = opened.take_reader(number) or self._reader(number)
            rows = self._read_rows(reader, group & (1 << _GROUP_BITS) - 1, row)
            opened.give_back(number, reader)
            opened.keep(group, rows)
        return rows

    def _reader(self, number: int) -> Any:
        try:
            return self._open(number)
        except DataError as error:
            raise OSError(str(error)) from None

    def _read_rows(self, reader: Any, group: int, row: int) -> "_Rows":
        """The whole of a row group, or, if that is large, a slice of it in which `row` is."""
        columns = self._columns
        leaf = f"{columns.image}.bytes" if columns.in_struct else columns.image
        try:
            about = reader.metadata.row_group(group)
            count = min(about.num_rows, 1 << _ROW_BITS)
            if about.total_byte_size > _CACHE_BYTES:
                count = max(1, count * _SLICE_BYTES // about.total_byte_size)
            first = 0
            for part in reader.iter_batches(
                batch_size=max(1, count), row_groups=[group], columns=[leaf], use_threads=False
            ):
                images = part.column(0)
                if row < first + len(images):
                    return _Rows(first, images.field("bytes") if columns.in_struct else images)
                first += len(images)
            raise OSError(f"its row group has {first} images, fewer than labels")
        except (self._arrow.ArrowException, ValueError, IndexError, KeyError) as error:
            raise OSError(f"its row group cannot be read: {one_line(error)}") from None


@dataclass(frozen=True)
class _Rows:
    """The images of a row group from row `first` on."""

    first: int
    images: Any

    def __contains__(self, row: int) -> bool:
        return self.first <= row < self.first + len(self.images)


class _Opened:
    """Readers and row groups that one process keeps; another begins anew (see `here`)."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, _Rows] = OrderedDict()
        self._bytes = 0
        self._readers: deque[tuple[int, Any]] = deque()

    def here(self) -> "_Opened":
        """Itself, or, after a fork, a new one: a lock may have been held by another thread."""
        return self if self._process == os.getpid() else _Opened()

    def get(self, group: int, row: int) -> _Rows | None:
        with self._lock:
            found = self._groups.get(group)
            if found is None or row not in found:
                return None
            self._groups.move_to_end(group)
            return found

    def keep(self, group: int, rows: _Rows) -> None:
        """Keep a row group, or other rows of it; the ones longest unused make room."""
        if rows.images.nbytes > _CACHE_BYTES:  # many times one image, each time in full
            return
        with self._lock:
            if (other := self._groups.pop(group, None)) is not None:
                self._bytes -= other.images.nbytes
            self._groups[group] = rows
            self._bytes += rows.images.nbytes
            while self._bytes > _CACHE_BYTES:
                self._bytes -= self._groups.popitem(last=False)[1].images.nbytes

    def take_reader(self, number: int) -> Any | None:
        """A reader of file `number` that nobody else uses meanwhile."""
        with self._lock:
            for entry in self._readers:
                if entry[0] == number:
                    self._readers.remove(entry)
                    return entry[1]
        return None

    def give_back(self, number: int, reader: Any) -> None:
        with self._lock:
            self._readers.append((number, reader))
            if len(self._readers) > _MOST_OPEN:
                self._readers.popleft()


def _place(file: int, group: int, row: int) -> int:
    return (file << _GROUP_BITS | group) << _ROW_BITS | row


def _parts(place: int) -> tuple[int, int, int]:
    """File, row group and row."""
    group, row = place >> _ROW_BITS, place & (1 << _ROW_BITS) - 1
    return group >> _GROUP_BITS, group & (1 << _GROUP_BITS) - 1, row


def _files(path: Path) -> list[Path]:
    """The files of a set, sorted; none if it is of another format."""
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    return [file for file in found if file.name.startswith("train")] or found


def _numbers(column: Any) -> tuple[Int64Array, Any]:
    """Labels, int64 [n], and bool [n], whether each is one."""
    nulls = column.is_null().to_numpy()
    values = column.fill_null(0).to_numpy()  # a number of every type
    known = ~nulls & (values >= 0) & (values < 2**63) & (values == np.floor(values))
    return np.where(known, values, 0).astype(np.int64), known

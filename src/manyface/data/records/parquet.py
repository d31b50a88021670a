"""Parquet with an image column, as Hugging Face keeps image sets; by pyarrow.

    image   struct {bytes, path}, or bytes (also called img, jpg, png, ...)
    label   whole number or text (also called identity, person, cls, ...); without such a column,
            the folder in the path

One file, or the files of a folder: `*.parquet` or `data/*.parquet`, of which those of the split
"train" count if there are such. Names of numbered people come from the schema's "huggingface"
features (ClassLabel), else from the folders of the paths, if each has one.

Parquet is no random access: a row comes with its row group. Labels and paths are read once, for the
index; sizes of images are not known before they are read, which would take all of the data. Reading
keeps row groups in memory up to a budget. Written are groups of 64 rows: to read one of 64 images
of 5 kB takes 0.09 ms, of 256 0.2 ms, of 1,000 1 ms (from the page cache, one core).
"""

import json
import os
import struct
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.files import PlainFile, new_file
from manyface.data.records.naming import people_of_folders, person_name
from manyface.data.records.store import (
    LARGEST_IMAGE,
    Faults,
    Found,
    Int64Array,
    RecordStore,
    ScanProgress,
    UInt64Array,
    fingerprint_of,
)
from manyface.data.records.writer import DraftFile, Position, RecordWriter, draft_of, new_folder

_MAGIC = b"PAR1"
_IMAGES = ("image", "img", "images", "jpg", "jpeg", "png", "webp", "picture", "photo", "face")
_LABELS = ("label", "labels", "identity", "identity_id", "person", "person_id", "subject", "class",
           "cls", "name", "target", "id")  # fmt: skip
_ROW_BITS, _GROUP_BITS = 24, 24  # of a place, then the number of the file
_CACHE_BYTES = 256 << 20
_MOST_OPEN = 64
_LONGEST_TEXT = 64 << 20  # of names and of the list of row groups in a file's footer


class ParquetStore(RecordStore):
    """The rows of the file `path`, or of the files in it.

    Raises:
        DataError: pyarrow is missing, or there is no column of images, or of labels.
    """

    kind = "parquet"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._arrow, self._parquet = _library()
        self.files = _files(path)
        self._opened = _Opened()
        schema = self._open(0).schema_arrow
        self._columns = _Columns.of(schema, self._arrow.types, self.files[0])
        self._class_names = _class_names(schema, self._columns.label)
        self._folders: _Folders | None = None

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

    def scan(self, faults: Faults, progress: ScanProgress) -> Iterator[Found]:
        self._folders = _Folders()
        done = 0
        for number, file in enumerate(self.files):
            try:
                for found in self._scan_file(number, faults):
                    yield found
                    done += len(found)
                    progress(done, None)
            except (self._arrow.ArrowException, ValueError, OSError, DataError) as error:
                faults.add(f"{file.name} cannot be read further: {_first_line(error)}")

    def read(self, place: int, size: int) -> bytes:
        group, row = place >> _ROW_BITS, place & (1 << _ROW_BITS) - 1
        data: bytes | None = self._images(group)[row].as_py()
        if data is None:
            raise OSError("the row holds no image, at most the path of one")
        return data

    def describe(self, place: int) -> str:
        file, group, row = _parts(place)
        return f"{self.files[file]}, row group {group}, row {row}"

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        names = self._class_names
        if names is not None and len(numbers) and int(numbers[-1]) < len(names):
            return [names[number] for number in numbers.tolist()]
        return None if self._folders is None else self._folders.person_names(numbers)

    def _scan_file(self, number: int, faults: Faults) -> Iterator[Found]:
        file = self._open(number)
        columns = _Columns.of(file.schema_arrow, self._arrow.types, self.files[number])
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
                faults.add(f"{where}: {_first_line(error)}")

    def _check_group(self, file: Any, number: int, group: int) -> None:
        """ValueError if it is more than can be counted, or than is read at once."""
        # Not `about.column(i)`: what it throws of a damaged file ends the process (pyarrow 26).
        about = file.metadata.row_group(group)
        if number >> 64 - _ROW_BITS - _GROUP_BITS or group >> _GROUP_BITS:
            raise ValueError("more files or row groups than can be counted")
        if about.num_rows >> _ROW_BITS or about.total_byte_size > LARGEST_IMAGE:
            raise ValueError(
                f"{about.num_rows} rows of {about.total_byte_size} bytes in one row group; write "
                "the set anew with smaller ones"
            )

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
                self._folders.learn(people, paths)
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
            raise DataError(f"cannot read {self.files[number]}: {_first_line(error)}") from None

    def _images(self, group: int) -> Any:
        """The column of images of a row group, `group` with the number of its file."""
        opened = self._opened = self._opened.here()
        column = opened.get(group)
        if column is None:
            number = group >> _GROUP_BITS
            reader = opened.take_reader(number) or self._reader(number)
            column = self._read_column(reader, group & (1 << _GROUP_BITS) - 1)
            opened.give_back(number, reader)
            opened.keep(group, column)
        return column

    def _reader(self, number: int) -> Any:
        try:
            return self._open(number)
        except DataError as error:
            raise OSError(str(error)) from None

    def _read_column(self, reader: Any, group: int) -> Any:
        columns = self._columns
        leaf = f"{columns.image}.bytes" if columns.in_struct else columns.image
        try:
            table = reader.read_row_group(group, columns=[leaf], use_threads=False)
            column = table.column(0)
            if columns.in_struct:
                column = self._arrow.chunked_array([c.field("bytes") for c in column.chunks])
            return column
        except (self._arrow.ArrowException, ValueError, IndexError, KeyError) as error:
            raise OSError(f"its row group cannot be read: {_first_line(error)}") from None


class _Opened:
    """Readers and row groups that one process keeps; another begins anew (see `here`)."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._bytes = 0
        self._readers: deque[tuple[int, Any]] = deque()

    def here(self) -> "_Opened":
        """Itself, or, after a fork, a new one: a lock may have been held by another thread."""
        return self if self._process == os.getpid() else _Opened()

    def get(self, group: int) -> Any | None:
        with self._lock:
            if group in self._groups:
                self._groups.move_to_end(group)
            return self._groups.get(group)

    def keep(self, group: int, column: Any) -> None:
        """Keep a row group; the ones longest unused make room."""
        with self._lock:
            if group in self._groups or column.nbytes > _CACHE_BYTES:
                return
            self._groups[group] = column
            self._bytes += column.nbytes
            while self._bytes > _CACHE_BYTES:
                self._bytes -= self._groups.popitem(last=False)[1].nbytes

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


class _Folders:
    """Folders of the paths by label, as long as each label has one and each folder one label."""

    def __init__(self) -> None:
        self._folder_of: dict[int, str] | None = {}

    def learn(self, labels: Int64Array, paths: Sequence[str]) -> None:
        for label, path in zip(labels.tolist(), paths, strict=True):
            if self._folder_of is None:
                return
            folder = path.rpartition("/")[0]
            if not folder or self._folder_of.setdefault(label, folder) != folder:
                self._folder_of = None

    def person_names(self, numbers: Int64Array) -> list[str] | None:
        if not self._folder_of:
            return None
        names = [person_name(self._folder_of[number]) for number in numbers.tolist()]
        return names if len(set(names)) == len(names) else None


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


@dataclass(frozen=True)
class _Columns:
    """Where images, labels and paths are.

    Attributes:
        image: a column of bytes, or a struct with them.
        label: a column of numbers, or of names (`has_names`); None if there is none.
        path: of the images, as a column within a struct; None if there is none.
    """

    image: str
    in_struct: bool
    label: str | None
    has_names: bool
    path: str | None

    @classmethod
    def of(cls, schema: Any, types: Any, file: Path) -> "_Columns":
        """Those of a file; DataError if it has none of images, or of labels."""
        kinds = {name: schema.field(name).type for name in dict.fromkeys(schema.names)
                 if schema.get_field_index(name) >= 0}  # fmt: skip
        image = next((n for n in (*_IMAGES, *kinds) if _holds_images(kinds.get(n), types)), None)
        label = next((n for n in _LABELS if _holds_labels(kinds.get(n), types)), None)
        there = f"it has {', '.join(schema.names)}"
        if image is None:
            raise DataError(
                f"{file} has no column of images: expected bytes, or a struct of bytes and path, "
                f"called image; {there}"
            )
        in_struct = types.is_struct(kinds[image])
        has_path = in_struct and _is_text(_field(kinds[image], "path"), types)
        if label is None and not has_path:
            raise DataError(
                f"{file} has no column of labels: expected one of {', '.join(_LABELS)}; {there}"
            )
        has_names = label is not None and not _is_number(kinds[label], types)
        return cls(image, in_struct, label, has_names, f"{image}.path" if has_path else None)


def _holds_images(kind: Any, types: Any) -> bool:
    if kind is not None and types.is_struct(kind):
        kind = _field(kind, "bytes")
    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))


def _holds_labels(kind: Any, types: Any) -> bool:
    if kind is not None and types.is_dictionary(kind):
        kind = kind.value_type
    return _is_text(kind, types) or (kind is not None and _is_number(kind, types))


def _is_text(kind: Any, types: Any) -> bool:
    return kind is not None and (types.is_string(kind) or types.is_large_string(kind))


def _is_number(kind: Any, types: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind))


def _field(kind: Any, name: str) -> Any | None:
    """The type of a field of a struct."""
    index = kind.get_field_index(name)
    return None if index < 0 else kind.field(index).type


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """Names of numbered people in the features that `datasets` keeps in a schema."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
        names = [person_name(str(name)) for name in names]
    except (KeyError, TypeError, ValueError):
        return None
    return names if len(set(names)) == len(names) and all(names) else None


def _numbers(column: Any) -> tuple[Int64Array, Any]:
    """Labels, int64 [n], and bool [n], whether each is one."""
    nulls = column.is_null().to_numpy()
    values = column.fill_null(-1).to_numpy()
    known = ~nulls & (values >= 0) & (values < 2**63) & (values == np.floor(values))
    return np.where(known, values, 0).astype(np.int64), known


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


class ParquetWriter(RecordWriter):
    """Writes the folder `path` with `train-00000.parquet`, `train-00001.parquet`, ...

    A Parquet file cannot be gone on with, so records are first laid in a plain file, and each
    part is made of one when that is full.

    Args:
        path, identity_names: as of RecordWriter.
        max_bytes: of the images of a part.
    """

    _ROWS, _GROUP_BYTES = 64, 8 << 20
    _MOST_CLASS_NAMES = 100_000  # they are in the footer of each part; more are left to the paths
    _HEADER = struct.Struct("<IIQ")  # person, bytes of the name, bytes of the image

    def __init__(
        self, path: Path, *, identity_names: Sequence[str], max_bytes: int = 256 << 20
    ) -> None:
        super().__init__(path, identity_names=identity_names)
        self._arrow, self._parquet = _library()
        self._folder = new_folder(path)
        self._max_bytes = max_bytes
        self._part, self._committed_part = 0, 0
        self._rows = DraftFile(self._rows_path(0))

    def add(self, image: bytes, *, person: int, name: str) -> None:
        encoded = os.fsencode(name)
        self._rows.write(self._HEADER.pack(person, len(encoded), len(image)) + encoded + image)
        if self._rows.length >= self._max_bytes:
            self._finish_part()
            self._rows = DraftFile(self._rows_path(self._part))

    def commit(self) -> Position:
        # A part's rows go at the commit after the next: until then, its own may be resumed from.
        for part in range(self._committed_part):
            self._draft(part).unlink(missing_ok=True)
        self._committed_part = self._part
        return {"part": self._part, "length": self._rows.sync()}

    def resume(self, position: Position) -> None:
        self._rows.close()
        self._part = self._committed_part = position["part"]
        if self._was_finishing(position):
            self._part += 1
            self._rows = DraftFile(self._rows_path(self._part))
            return
        for part in self._folder.glob("train-*.parquet"):
            if int(part.stem[6:]) >= self._part:
                part.unlink()
        for draft in self._folder.glob(".train-*"):  # of a part that was just being written
            draft.unlink()
        for rows in self._folder.glob("rows-*.part"):
            if int(rows.stem[5:]) > self._part:
                rows.unlink()
        self._rows = DraftFile(self._rows_path(self._part))
        self._rows.cut(position["length"])

    def _was_finishing(self, position: Position) -> bool:
        """Whether `finish` was cut off when the last rows were a part already and let go."""
        rows = self._draft(self._part)
        gone = not rows.exists() or rows.stat().st_size < position["length"]
        return gone and (self._folder / f"train-{self._part:05d}.parquet").exists()

    def finish(self) -> None:
        if self._rows.length or not self._part:
            self._finish_part()
        self._rows.close()
        for draft in self._folder.glob("rows-*"):
            draft.unlink()
        self._folder.replace(self.path)

    def close(self) -> None:
        self._rows.close()

    def _rows_path(self, part: int) -> Path:
        return self._folder / f"rows-{part:05d}"

    def _draft(self, part: int) -> Path:
        return draft_of(self._rows_path(part))

    def _finish_part(self) -> None:
        self._rows.sync()
        self._rows.close()
        schema = self._schema()
        with (
            new_file(self._folder / f"train-{self._part:05d}.parquet") as file,
            self._parquet.ParquetWriter(
                file, schema, compression="none", use_dictionary=False, write_statistics=False
            ) as writer,
        ):
            for rows in self._groups(PlainFile(self._draft(self._part))):
                writer.write_batch(self._arrow.RecordBatch.from_pylist(rows, schema=schema))
        self._part += 1

    def _groups(self, file: PlainFile) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        position, num_bytes = 0, 0
        while position < file.size:
            header = self._HEADER.unpack(file.read(position, self._HEADER.size))
            person, name_size, image_size = header
            data = file.read(position + self._HEADER.size, name_size + image_size)
            name = data[:name_size].decode("utf-8", "backslashreplace")
            path = f"{self.identity_names[person]}/{name}"
            rows.append({"image": {"bytes": data[name_size:], "path": path}, "label": person})
            position += self._HEADER.size + len(data)
            num_bytes += image_size
            if len(rows) == self._ROWS or num_bytes > self._GROUP_BYTES:
                yield rows
                rows, num_bytes = [], 0
        if rows:
            yield rows

    def _schema(self) -> Any:
        arrow = self._arrow
        label: dict[str, Any] = {"dtype": "int64", "_type": "Value"}
        if len(self.identity_names) <= self._MOST_CLASS_NAMES:
            label = {"names": list(self.identity_names), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        return arrow.schema(
            [("image", image), ("label", arrow.int64())],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )


def _library() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            "Parquet needs the package pyarrow; run: pip install 'manyface[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet

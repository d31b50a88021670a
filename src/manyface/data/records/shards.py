"""Tar shards in WebDataset's naming, read in place: on disk, or at any address of fsspec.

Neighbours in a tar whose paths are equal up to the first dot of the last part are one sample:

    000000017.jpg, 000000017.cls             whose it is: a number or a name, as text
    000000017.jpg, 000000017.json            {"label": 3, ...}; also "class", "identity", "person"
    000000017.jpg, 000000017.txt             the same as .cls; of a single file only at its top
    Ann/17.jpg                               without these: the folder

A set is a folder of `.tar` files, one file, or a name for several (`faces-{000000..000012}.tar`,
`{left,right}.tar`, `faces-*.tar`). For the index each shard is read once from front to back; of
remote ones that is all of their bytes, and an image is then one range request. A place is the
number of the shard and the offset in it, so the names of shards must not change their order.
Nothing is extracted.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from manyface.base.errors import DataError
from manyface.base.progress import Progress
from manyface.data.records.files import PlainFile
from manyface.data.records.headers import BLOCK, Member, is_tar_header, iterate_members
from manyface.data.records.naming import (
    is_hidden,
    is_image_name,
    people_of_folders,
    suffix_of_content,
)
from manyface.data.records.readahead import will_need
from manyface.data.records.remote import (
    Address,
    Location,
    Readable,
    expand,
    is_pattern,
    remote_files,
)
from manyface.data.records.store import (
    Collector,
    Faults,
    Found,
    Int64Array,
    NamesOfNumbers,
    RecordStore,
    UInt32Array,
    UInt64Array,
    as_label,
    fingerprint_of,
)
from manyface.data.records.writer import (
    DraftFile,
    Position,
    RecordWriter,
    new_folder,
    tar_member,
)

_SUFFIX = ".tar"
_OFFSET_BITS = 44  # of a place; the number of the shard is above
_CHUNK = 1 << 14
_MOST_OPEN = 256
_LONGEST = {"cls": 1 << 10, "json": 1 << 20, "txt": 1 << 10}  # bytes of what tells of labels
_NUM_TRIED = 64
_RULES = "samples 2"  # by which samples are told apart; an index made by others is made anew
_LABEL_KEYS = ("label", "class", "cls", "identity", "id", "person", "name")
_IN_A_ROW = re.compile(r"\d{4,}\.tar$")

Sample = dict[str, Member]  # by what comes after the key: "jpg", "cls"


class _Shard(Readable, Protocol):
    def streamed(self) -> AbstractContextManager[Readable]: ...


class ShardStore(RecordStore):
    """The samples of the shards that `path` stands for.

    Raises:
        DataError: there is none.
    """

    kind = "shards"

    def __init__(self, path: Location) -> None:
        super().__init__(path)
        self._remote = remote_files(path, _SUFFIX) if isinstance(path, Address) else []
        self.files = _local_files(path) if isinstance(path, Path) else []
        self._num_shards = len(self._remote or self.files)
        if not self._num_shards:
            raise DataError(f"no tar files at {path}")
        self._shard = lru_cache(_MOST_OPEN)(self._open)
        self._names = NamesOfNumbers()
        self._by_folder = False

    @classmethod
    def recognise(cls, path: Path, head: bytes) -> "ShardStore | None":
        if path.is_dir():
            return cls(path) if _is_folder_of_shards(path) else None
        return cls(path) if is_tar_header(head) and _has_labels(path) else None

    def fingerprint(self) -> str:
        files = "; ".join(each.version for each in self._remote) or fingerprint_of(self.files)
        return f"{_RULES}; {files}"

    def scan(self, faults: Faults, progress: Progress) -> Iterator[Found]:
        self._names, self._by_folder = NamesOfNumbers(), False
        found, done = Collector(), 0
        for number in range(self._num_shards):
            for key, sample, contents in self._samples(number, faults):
                if len(found) == _CHUNK:
                    done += _CHUNK
                    yield found.take()
                    progress(done, None)
                for other in _hidden_by(_images_of(sample)):
                    faults.add(f"{self._where(number)}: {key}.{other}: not the first of its key")
                try:
                    self._add(found, number, key, sample, contents)
                except ValueError as error:
                    faults.add(f"{self._where(number)}: {key}: {error}")
        if len(found):
            yield found.take()

    def read(self, place: int, size: int) -> bytes:
        try:
            shard = self._shard(place >> _OFFSET_BITS)
        except DataError as error:
            raise OSError(str(error)) from None
        return shard.read(place & (1 << _OFFSET_BITS) - 1, size)

    def will_read(self, places: UInt64Array, sizes: UInt32Array) -> None:
        """Of shards on disk; those that are far away are not asked for."""
        shards = (places >> np.uint64(_OFFSET_BITS)).astype(np.int64)
        offsets = (places & np.uint64((1 << _OFFSET_BITS) - 1)).astype(np.int64)
        for number in np.unique(shards).tolist():
            with suppress(DataError):  # a shard that is gone is reported when it is read
                if isinstance(shard := self._shard(number), PlainFile):
                    here = shards == number
                    will_need(shard.descriptor, offsets[here], sizes[here].astype(np.int64))

    def describe(self, place: int) -> str:
        offset = place & (1 << _OFFSET_BITS) - 1
        return f"{self._where(place >> _OFFSET_BITS)} at byte {offset}"

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        return self._names.of(numbers)

    def call_people(self, names: Sequence[str]) -> Sequence[str]:
        return people_of_folders(names) if self._by_folder else names

    def _open(self, number: int) -> _Shard:
        return self._remote[number] if self._remote else PlainFile(self.files[number])

    def _where(self, number: int) -> Location:
        return self._remote[number].path if self._remote else self.files[number]

    def _samples(
        self, number: int, faults: Faults
    ) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
        """Those of a shard, each with the contents that tell its label; damage ends them."""
        try:
            with self._open(number).streamed() as file:
                for key, sample in samples(iterate_members(file)):
                    yield key, sample, _small_contents(file, sample)
        except DataError as error:
            faults.add(f"what follows is left out: {error}")
        except OSError as error:  # a lost connection is no damage, and no index is made of it
            raise DataError(f"cannot read {self._where(number)}: {error}; try again") from None

    def _add(
        self, found: Collector, number: int, key: str, sample: Sample, contents: dict[str, bytes]
    ) -> None:
        images = _images_of(sample)
        if not images:
            raise ValueError("no image")
        image = images[0]
        member = sample[image]
        if member.offset >> _OFFSET_BITS:
            raise ValueError("too far back in its file")
        about = _json_object(contents.get("json"))
        label = _label_of(contents, about)
        folder, _, last = key.rpartition("/")
        if label is None:
            self._by_folder = True
            label = folder
        if not label and label != 0:
            raise ValueError("no label, and no folder")
        if isinstance(label, int):
            self._names.learn(label, _name_in(about, "person"))
        name = _name_in(about, "name") if "person" in about else None
        place = number << _OFFSET_BITS | member.offset
        found.add(place, member.size, label, f"{last}.{image}" if name is None else name)


def samples(members: Iterator[Member]) -> Iterator[tuple[str, Sample]]:
    """Key and members of each sample, in order; a member that comes again begins another."""
    last: str | None = None
    sample: Sample = {}
    for member in members:
        folder, slash, name = member.name.removeprefix("./").rpartition("/")
        stem, _, rest = name.partition(".")
        if is_hidden(name) or member.shares is not None:
            continue
        key = folder + slash + stem
        if sample and (key != last or rest.lower() in sample):
            yield str(last), sample
            sample = {}
        last = key
        sample[rest.lower()] = member
    if sample:
        yield str(last), sample


def _images_of(sample: Sample) -> list[str]:
    """Its parts that are images, a "jpg" before what is beside it, such as "depth.png"."""
    images = [part for part in sample if is_image_name(f".{part}")]
    return sorted(images, key=lambda part: "." in part)


def _hidden_by(images: list[str]) -> list[str]:
    """Photos lost behind the first, since their names differ only after their first dot."""
    return images[1:] if images and "." in images[0] else []


def _small_contents(file: Readable, sample: Sample) -> dict[str, bytes]:
    """Of the members that tell whose an image is."""
    contents = {}
    for part, longest in _LONGEST.items():
        if part in sample and sample[part].size <= longest:
            contents[part] = file.read(sample[part].offset, sample[part].size)
    return contents


def _json_object(text: bytes | None) -> dict[str, object]:
    """What is in a .json; ValueError if that is none."""
    try:  # decoded here: of bytes the library guesses the encoding, and imports what reads it
        found = json.loads(text.decode("utf-8-sig")) if text else {}
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON in UTF-8 in .json, got {_shown(text or b'')}") from None
    return found if isinstance(found, dict) else {}


def _label_of(contents: dict[str, bytes], about: dict[str, object]) -> int | str | None:
    """What a sample says of whose it is; None if nothing."""
    if "cls" in contents:
        return as_label(_text(contents["cls"], ".cls"))
    key = next((key for key in _LABEL_KEYS if key in about), None)
    if key is not None:
        return as_label(about[key])
    return as_label(_text(contents["txt"], ".txt")) if "txt" in contents else None


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"expected a label as UTF-8 text in {where}, got {_shown(raw)}") from None


def _shown(raw: bytes) -> str:
    return f"{raw[:40]!r}{' ...' if len(raw) > 40 else ''}"


def _name_in(about: dict[str, object], key: str) -> str | None:
    """A name in a .json; None if there is none, or half a character that no file can hold."""
    name = about.get(key)
    try:
        return os.fsdecode(os.fsencode(name)) if isinstance(name, str) else None
    except UnicodeEncodeError:
        return None


def _is_folder_of_shards(folder: Path) -> bool:
    """It has tar files, and either no folders beside them, or names with numbers."""
    found = _local_files(folder)
    if any(_IN_A_ROW.search(path.name) for path in found):
        return True
    return bool(found) and not any(
        path.is_dir() and not is_hidden(path.name) for path in folder.iterdir()
    )


def _has_labels(path: Path) -> bool:
    """Whether the first samples of a tar file are ones, and not a folder of persons.

    A .txt may be anything there, but not beside photos that would be nobody's.
    """
    by_text: bool | None = None
    try:
        file = PlainFile(path)
        for tried, (key, sample) in enumerate(samples(iterate_members(file))):
            if "cls" in sample:
                return True
            if "json" in sample:
                about = _json_object(_small_contents(file, sample).get("json"))
                return any(key in about for key in _LABEL_KEYS)
            if _images_of(sample):
                by_text = by_text is not False and "txt" in sample and "/" not in key
            if tried == _NUM_TRIED:
                break
    except (DataError, OSError, ValueError):
        return False  # the reader of folders of persons will say what is wrong
    return bool(by_text)


def _local_files(path: Path) -> list[Path]:
    """What is called so, before what its name might stand for."""
    if path.is_dir():
        return sorted(file for file in path.glob(f"*{_SUFFIX}") if not is_hidden(file.name))
    if path.exists() or not is_pattern(path):
        return [path]
    files: list[Path] = []
    for each in map(Path, expand(str(path))):
        if "*" in each.name:
            files += sorted(each.parent.glob(each.name))
        else:
            files += _local_files(each) if each.is_dir() else [each]
    return files


class ShardWriter(RecordWriter):
    """Writes the folder `path` with `NAME-000000.tar`, `NAME-000001.tar`, ...

    Of each record: 000000017.jpg, 000000017.cls with its label, 000000017.json with its names. The
    latter two take 2 kB.

    Args:
        path, identity_names: as of RecordWriter.
        max_bytes: of a shard.
    """

    def __init__(
        self, path: Path, *, identity_names: Sequence[str], max_bytes: int = 1 << 30
    ) -> None:
        super().__init__(path, identity_names=identity_names)
        self._folder, self._max_bytes = new_folder(path), max_bytes
        self._count, self._shard = 0, 0
        self._file: DraftFile | None = None

    def add(self, image: bytes, *, person: int, name: str) -> None:
        names = {"person": self.identity_names[person], "name": name}
        suffix = suffix_of_content(image) or ".jpg"
        self._add_member(suffix, image)
        self._add_member(".cls", b"%d" % person)
        self._add_member(".json", json.dumps(names).encode())
        self._count += 1
        if self._opened().length >= self._max_bytes:
            self._finish_shard()

    def commit(self) -> Position:
        return {"count": self._count, "shard": self._shard, "length": self._opened().sync()}

    def resume(self, position: Position) -> None:
        self._count, self._shard = position["count"], position["shard"]
        for path in self._folder.iterdir():
            number = re.search(r"-(\d{6})\.tar", path.name)
            if number and int(number[1]) > self._shard:
                path.unlink()
        self._opened().cut(position["length"])

    def finish(self) -> None:
        if self._opened().length or not self._shard:
            self._finish_shard()
        else:
            self._opened().discard()
        self._folder.replace(self.path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> DraftFile:
        if self._file is None:
            name = f"{self.path.stem}-{self._shard:06d}{_SUFFIX}"
            self._file = DraftFile(self._folder / name)
        return self._file

    def _add_member(self, suffix: str, content: bytes) -> None:
        name = f"{self._count:09d}{suffix}"
        self._opened().write(tar_member(name, content, tarfile.GNU_FORMAT))

    def _finish_shard(self) -> None:
        file = self._opened()
        file.write(bytes(2 * BLOCK))
        file.finish()
        self._file = None
        self._shard += 1

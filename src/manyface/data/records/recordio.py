"""MXNet RecordIO, read and written without mxnet: `train.rec` with `train.idx`.

A record (little-endian, dmlc-core src/recordio.cc):

    uint32  0xCED7230A
    uint32  upper 3 bits: 0 whole, 1 first, 2 middle, 3 last part; lower 29: length
    bytes   the payload, zeros up to a multiple of 4

Where the payload holds the magic number at a multiple of 4, it is cut there: a reader puts the four
bytes back between the parts. The payload is that of mxnet.recordio.pack: uint32 flag, float32
label, uint64 id, uint64 id2; flag = k > 0 means that k float32 labels follow, of which the first is
the class; then the encoded image.

Two flavours: im2rec's has photos only. insightface's has records without an image besides: key 0
holds the numbers of photos and identities, keys from there on the photos of an identity each. They
are passed over; photos are told from them by their bytes.

`train.idx` gives the places; a lost or wrong one is replaced by a walk through the file. Labels are
float32: from 16,777,217 on, neighbours are one (`manyface data check` says so). `train.lst`, where
it fits, gives people the names of their folders.
"""

import json
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.data.records.files import PlainFile, only_file
from manyface.data.records.packing_list import CONTRADICTS, PackingList, named_by
from manyface.data.records.store import (
    ABOUT_FILES,
    LARGEST_IMAGE,
    Faults,
    Found,
    Int64Array,
    RecordStore,
    ScanProgress,
    UInt64Array,
    fingerprint_of,
)
from manyface.data.records.writer import DraftFile, Position, RecordWriter, draft_of

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2
LARGEST_LABEL = 1 << 24  # whole numbers up to here are exact in float32
WHOLE, FIRST, MIDDLE, LAST = range(4)

_FRAME = 8  # magic and length
_CHUNK = 1 << 16
_IN_PARTS = 1 << 63  # a place that needs to be put together: the offset of its frame


class RecordIOStore(RecordStore):
    """The records of the file `path`, a `.rec`."""

    kind = "recordio"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = PlainFile(path)
        self.index_file = path.with_suffix(".idx")
        self.list_file = path.with_suffix(".lst")
        self._list: PackingList | None = None
        self._headers = HeaderRecords()

    @classmethod
    def recognise(cls, path: Path, head: bytes) -> "RecordIOStore | None":
        if path.is_dir():
            path = only_file(path, ".rec", preferred="train.rec") or path
        elif path.suffix == ".idx":
            path = path.with_suffix(".rec")
        elif not head.startswith(MAGIC_BYTES):
            return None
        return cls(path) if path.is_file() else None

    def fingerprint(self) -> str:
        extra = [path for path in (self.index_file, self.list_file) if path.is_file()]
        return fingerprint_of([self._file.path, *extra])

    def scan(self, faults: Faults, progress: ScanProgress) -> Iterator[Found]:
        frames, keys = self._frames(faults)
        self._list = None if keys is None else PackingList.read(self.list_file)
        parts = self._parts(frames, keys, faults, progress)
        if self._list is None:
            yield from (found for found, _ in parts)
            return
        fits, named = named_by(self._list, parts)
        if not fits:
            faults.add(f"{self.list_file.name} {CONTRADICTS}", kind=ABOUT_FILES)
            self._list = None
        yield from named

    def _parts(
        self, frames: UInt64Array, keys: Int64Array | None, faults: Faults, progress: ScanProgress
    ) -> Iterator[tuple[Found, Int64Array | None]]:
        """The records and their keys."""
        self._headers = HeaderRecords()
        data = self._file.map()
        for start in range(0, len(frames), _CHUNK):
            part = slice(start, start + _CHUNK)
            found, kept = self._found(frames[part], data, faults)
            yield found, None if keys is None else keys[part][kept]
            progress(min(part.stop, len(frames)), len(frames))

    def read(self, place: int, size: int) -> bytes:
        if place & _IN_PARTS:
            return self._image_in_parts(place & ~_IN_PARTS)
        return self._file.read(place, size)

    def describe(self, place: int) -> str:
        return f"{self.path} at byte {place & ~_IN_PARTS}"

    def notes(self) -> dict[str, str]:
        return {"headers": json.dumps(self._headers.facts())}

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        return None if self._list is None else self._list.person_names(numbers)

    def unlisted(self, progress: ScanProgress) -> int:
        """Records between others that the index does not name; 0 without one, or if it is not used
        (which the scan has said)."""
        entries = read_index(self.index_file) if self.index_file.is_file() else None
        if entries is None or not self._begin_records(entries[0]):
            return 0
        if not self._reaches_end(entries[0]):
            return 0
        listed, missing = entries[0], 0
        for count, frame in enumerate(walk(self._file, Faults()), start=1):
            place = int(np.searchsorted(listed, np.uint64(frame)))
            missing += place == len(listed) or int(listed[place]) != frame
            if count % _CHUNK == 0:
                progress(count, len(listed))
        return missing

    def _frames(self, faults: Faults) -> tuple[UInt64Array, Int64Array | None]:
        """Where records begin, ascending, and their keys: from the index if all of it fits."""
        if self.index_file.is_file():
            entries = read_index(self.index_file)
            fits = entries is not None and self._begin_records(entries[0])
            if entries is not None and fits and self._reaches_end(entries[0]):
                return entries
            what = "ends before" if fits else "does not fit"
            text = f"{self.index_file.name} {what} {self.path.name} and was not used"
            faults.add(text, kind=ABOUT_FILES)
        return np.fromiter(walk(self._file, faults), np.uint64), None

    def _begin_records(self, frames: UInt64Array) -> bool:
        size = self._file.size
        if not len(frames) or frames[0] != 0 or (frames % 4).any():
            return False
        if frames[-1] > size - _FRAME or (frames[1:] == frames[:-1]).any():
            return False
        data = self._file.map()
        parts = (frames[i : i + _CHUNK] for i in range(0, len(frames), _CHUNK))
        return all((_words(data, part) == MAGIC).all() for part in parts)

    def _reaches_end(self, frames: UInt64Array) -> bool:
        """Whether no record begins behind the last of `frames`, those that the index names.

        What does not fill a frame is padding; a last record that is cut off ends behind the end.
        """
        frame = int(frames[-1])
        while frame + _FRAME <= self._file.size:
            magic, word = struct.unpack("<II", self._file.read(frame, _FRAME))
            length = word & (1 << LENGTH_BITS) - 1
            frame += _FRAME + length + -length % 4
            if magic != MAGIC or word >> LENGTH_BITS in (WHOLE, LAST):
                break
        return frame + _FRAME > self._file.size

    def _found(
        self, frames: UInt64Array, data: npt.NDArray[np.uint8], faults: Faults
    ) -> tuple[Found, npt.NDArray[np.bool_]]:
        """What is a record, and which of the `frames` these are."""
        lengths = _words(data, frames + 4)
        plain = self._are_plain(frames, lengths)
        flags, labels = _flags_and_labels(data, frames, lengths, plain)
        skipped = HEADER.size + 4 * flags.astype(np.uint64)
        sizes = np.where(plain, lengths, 0).astype(np.int64) - skipped.astype(np.int64)
        places = frames + _FRAME + skipped
        for i in np.flatnonzero(~plain).tolist():
            frame = int(frames[i])
            flags[i], labels[i], sizes[i] = self._in_parts(frame, faults)
            places[i] = frame | _IN_PARTS
        headers = (flags >= 2) & (sizes == 0)
        self._headers.add(data, frames[headers & plain])
        kept = ~headers & (sizes >= 0)
        for i in np.flatnonzero(plain & (sizes < 0)).tolist():
            faults.add(f"the record at byte {frames[i]} is shorter than its header")
        with np.errstate(invalid="ignore"):  # a signalling NaN
            whole = (labels >= 0) & (labels == np.floor(labels)) & (labels < 2**63)
        for i in np.flatnonzero(kept & ~whole).tolist():
            faults.add(
                f"the record at byte {frames[i]} has label {labels[i]:g}: no identity", kind="label"
            )
        kept &= whole
        people = labels[kept].astype(np.int64)
        return Found(places[kept], sizes[kept].astype(np.uint32), people), kept

    def _are_plain(
        self, frames: UInt64Array, lengths: npt.NDArray[np.uint32]
    ) -> npt.NDArray[np.bool_]:
        """Records in one part that end within the file."""
        whole = lengths >> LENGTH_BITS == WHOLE
        ends: UInt64Array = frames + _FRAME + (lengths & (1 << LENGTH_BITS) - 1)
        plain: npt.NDArray[np.bool_] = whole & (ends <= self._file.size)
        return plain

    def _in_parts(self, frame: int, faults: Faults) -> tuple[int, float, int]:
        """Flag, label and image size of a record in parts; size -1 if it cannot be read."""
        try:
            payload = read_payload(self._file, frame)
            flag, label, skipped = parse_payload_header(payload)
        except (OSError, ValueError) as error:
            faults.add(f"the record at byte {frame}: {error}")
            return 0, 0.0, -1
        return flag, label, len(payload) - skipped

    def _image_in_parts(self, frame: int) -> bytes:
        try:
            payload = read_payload(self._file, frame)
            return payload[parse_payload_header(payload)[2] :]
        except ValueError as error:
            raise OSError(str(error)) from None


class HeaderRecords:
    """The records without an image that a scan meets: insightface's, and what they promise."""

    def __init__(self) -> None:
        self._ids: list[UInt64Array] = []
        self._spans: list[npt.NDArray[np.float32]] = []

    def add(self, data: npt.NDArray[np.uint8], frames: UInt64Array) -> None:
        """Those at `frames`, whole records with two labels or more."""
        if len(frames):
            self._ids.append(_words(data, frames + 16).astype(np.uint64))
            labels = frames + _FRAME + HEADER.size
            spans = np.stack([_words(data, labels), _words(data, labels + 4)], axis=1)
            self._spans.append(spans.view(np.float32))

    def facts(self) -> dict[str, int | None]:
        """Counts: of all; the photos and identities that record 0 names; identities without
        photos; and those that have the number of a photo, or of nothing."""
        if not self._ids:
            return {"count": 0}
        ids, spans = np.concatenate(self._ids), np.concatenate(self._spans)
        spans = np.where(np.abs(spans) < 1 << 62, spans, 0).astype(np.int64)  # NaN too
        first = spans[ids == 0][:1]  # [0 or 1, 2]
        if not len(first):
            return {"count": len(ids), "photos": None}
        start, end = first[0].tolist()
        identities = (ids >= max(start, 0)) & (ids < max(end, 0))
        lengths = spans[identities, 1] - spans[identities, 0]
        return {
            "count": len(ids),
            "photos": start - 1,
            "identities": end - start,
            "empty": int((lengths <= 0).sum()),
            "misplaced": int((~identities).sum()) - 1,
        }


def read_payload(file: PlainFile, frame: int) -> bytes:
    """The payload of the record at byte `frame`, put together.

    Raises:
        ValueError: there is no record. OSError: the file ends before it does.
    """
    parts: list[bytes] = []
    total = 0
    while True:
        magic, word = struct.unpack("<II", file.read(frame, _FRAME))
        kind, length = word >> LENGTH_BITS, word & (1 << LENGTH_BITS) - 1
        if magic != MAGIC or (kind in (WHOLE, FIRST)) != (not parts):
            raise ValueError(f"no record part at byte {frame}")
        total += length + 4
        if frame + _FRAME + length > file.size or total > LARGEST_IMAGE:
            raise ValueError(f"a part of {length} bytes at byte {frame} does not fit")
        parts.append(file.read(frame + _FRAME, length))
        if kind in (WHOLE, LAST):
            return MAGIC_BYTES.join(parts)
        frame += _FRAME + length + -length % 4


def parse_payload_header(payload: bytes) -> tuple[int, float, int]:
    """Flag, class label and the bytes before the image; ValueError if it is too short."""
    if len(payload) < HEADER.size:
        raise ValueError("shorter than its header")
    flag, label, _, _ = HEADER.unpack_from(payload)
    skipped = HEADER.size + 4 * flag
    if skipped > len(payload):
        raise ValueError(f"{flag} labels in {len(payload)} bytes")
    if flag:
        (label,) = struct.unpack_from("<f", payload, HEADER.size)
    return flag, label, skipped


def walk(file: PlainFile, faults: Faults) -> Iterator[int]:
    """Where records begin, from one to the next; damaged stretches are passed over and told of."""
    position, end = 0, file.size
    within = False  # a record of several parts
    while position + _FRAME <= end:
        magic, word = struct.unpack("<II", file.read(position, _FRAME))
        kind, length = word >> LENGTH_BITS, word & (1 << LENGTH_BITS) - 1
        if magic != MAGIC:
            faults.add(f"no record at byte {position}")  # however many bytes it takes
            position = _next_magic(file, position + 4)
            within = False
            continue
        if kind in (WHOLE, FIRST):
            yield position
        elif not within:
            faults.add(f"a part without beginning at byte {position}")
        within = kind in (FIRST, MIDDLE)
        position += _FRAME + length + -length % 4
    if position != end:
        faults.add(f"the file is cut off: a record ends at byte {position} of {end}")


def _next_magic(file: PlainFile, position: int) -> int:
    """The next multiple of 4 from `position` on with the magic number; else the end."""
    length, end = 256, file.size
    while position < end:
        block = file.read(position, min(length, end - position))
        words = np.frombuffer(block[: len(block) // 4 * 4], "<u4")
        hits = np.flatnonzero(words == MAGIC)
        if len(hits):
            return position + 4 * int(hits[0])
        position += len(block)
        length = min(2 * length, 1 << 20)  # many short stretches must not cost a block each
    return end


def read_index(path: Path) -> tuple[UInt64Array, Int64Array] | None:
    """Ascending places and their keys from an `.idx`: lines of key, TAB, byte; None if it is none.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            blocks = [_numbers(block) for block in iter(lambda: _lines(file), b"")]
        keys, places = np.concatenate(blocks, axis=1)
        order = np.argsort(places, kind="stable")
        return places[order].astype(np.uint64), keys[order]
    except (ValueError, OverflowError):
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _lines(file: BinaryIO) -> bytes:
    """The next 16 MiB and the rest of the last line: split whole, 100M lines would take 10 GB."""
    return file.read(1 << 24) + file.readline(1 << 10)


def _numbers(block: bytes) -> Int64Array:
    """Keys and places, [2, n], of lines of both."""
    # Only what can be numbers, and no array of words, which is as wide as the longest of them.
    if not re.fullmatch(rb"[0-9\s]*", block):
        raise ValueError("not numbers")
    numbers = np.fromstring(block.decode("ascii"), np.int64, sep=" ")
    if len(numbers) % 2 or (numbers == np.iinfo(np.int64).max).any():  # what is larger becomes that
        raise ValueError("not pairs of a key and a place")
    return numbers.reshape(-1, 2).T


def _words(data: npt.NDArray[np.uint8], offsets: UInt64Array) -> npt.NDArray[np.uint32]:
    """The uint32 at each of `offsets`, multiples of 4; 0 beyond the end."""
    words = data[: len(data) // 4 * 4].view("<u4")
    places = (offsets // 4).astype(np.int64)
    inside = places < len(words)
    return np.where(inside, words[np.minimum(places, len(words) - 1)], 0).astype(np.uint32)


def _flags_and_labels(
    data: npt.NDArray[np.uint8],
    frames: UInt64Array,
    lengths: npt.NDArray[np.uint32],
    plain: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """Flag and class label of the plain records; a flag that claims too much makes its size < 0."""
    flags = np.where(plain, _words(data, frames + _FRAME), 0).astype(np.uint32)
    label_at = frames + _FRAME + np.where(flags > 0, np.uint64(HEADER.size), np.uint64(4))
    return flags, _words(data, label_at).view(np.float32).copy()


class RecordIOWriter(RecordWriter):
    """Writes `path` (a `.rec`), its `.idx`, `.lst` and insightface's `property`.

    In insightface's flavour, as its face2rec2.py writes it, photos have keys from 1 on and two
    labels, the class and 1 (aligned); photos of a person must be neighbours. Behind them come the
    record with key 0, which holds the keys after the last photo and after the last identity, and
    from the former key on, for each identity, its first photo and the one after its last.

    Args:
        path, identity_names: as of RecordWriter.
        image_size: side in pixels, for `property`.
        headers: insightface's flavour; else im2rec's, which DALI needs.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity_names: Sequence[str],
        image_size: int = 112,
        headers: bool = False,
    ) -> None:
        super().__init__(path, identity_names=identity_names)
        if len(identity_names) > LARGEST_LABEL + 1:
            raise DataError(
                f"{path}: RecordIO keeps labels as float32, exact up to {LARGEST_LABEL}, and there "
                f"are {len(identity_names)} people; choose another format"
            )
        self._image_size, self._headers, self._count = image_size, headers, 0
        self._last_person = -1
        suffixes = (".rec", ".idx", ".lst")
        self._files = [DraftFile(path.with_suffix(suffix)) for suffix in suffixes]

    def add(self, image: bytes, *, person: int, name: str) -> None:
        key = self._count + self._headers
        if self._headers:
            self._check_photo(image, person)
            header = HEADER.pack(2, 0, key, 0) + struct.pack("<ff", person, 1)
        else:
            header = HEADER.pack(0, float(person), key, 0)
        try:
            self._write(key, header + image)
        except ValueError as error:
            who = f"{name} of {self.identity_names[person]!r}"
            raise DataError(f"{self.path}: {who}: {error}; leave it out") from None
        path = os.fsencode(f"{self.identity_names[person]}/{name}")
        self._files[2].write(b"%d\t%d\t%s\n" % (key, person, path))
        self._count += 1

    def _write(self, key: int, payload: bytes) -> None:
        records, index, _ = self._files
        framed = frame(payload)
        index.write(b"%d\t%d\n" % (key, records.length))
        records.write(framed)

    def _check_photo(self, image: bytes, person: int) -> None:
        if not image:
            raise DataError(
                f"{self.path}: a photo of no bytes (of {self.identity_names[person]!r}) would be "
                "taken for a header record; leave it out, or write without headers"
            )
        if person < self._last_person:
            raise DataError(
                f"{self.path}: with header records, the photos of a person are neighbours; "
                "write them in order, or without headers"
            )
        self._last_person = person

    def commit(self) -> Position:
        lengths = {file.path.suffix[1:]: file.sync() for file in self._files}
        return {"count": self._count, **lengths}

    def resume(self, position: Position) -> None:
        self._count, self._last_person = position["count"], -1
        for file in self._files:
            file.cut(position[file.path.suffix[1:]])

    def finish(self) -> None:
        if self._headers:
            self._write_headers()
        size = self._image_size
        about = self.path.with_name("property")
        if not about.exists():  # else it may belong to another set in this folder
            about.write_text(f"{len(self.identity_names)},{size},{size}\n{self._count}\n")
        for file in reversed(self._files):  # the records last: with them the set is there
            file.finish()

    def _write_headers(self) -> None:
        spans = list(self._spans())
        first = self._count + 1
        if first + len(spans) > LARGEST_LABEL:
            raise DataError(
                f"{self.path}: header records keep numbers of photos as float32, exact up to "
                f"{LARGEST_LABEL}, and there are {self._count}; write it without headers"
            )
        self._write(0, _header_record(0, first, first + len(spans)))
        for key, (start, end) in enumerate(spans, start=first):
            self._write(key, _header_record(key, start, end))

    def _spans(self) -> Iterator[tuple[int, int]]:
        """[first, end) keys of the photos of each person, from the list that was written."""
        names = self._files[2]
        names.sync()
        start, last = 1, None
        with draft_of(names.path).open("rb") as lines:
            for key, line in enumerate(lines, start=1):
                person = line.split(b"\t", 2)[1]
                if last is not None and person != last:
                    yield start, key
                    start = key
                last = person
        if last is not None:
            yield start, self._count + 1

    def close(self) -> None:
        for file in self._files:
            file.close()


def _header_record(key: int, start: int, end: int) -> bytes:
    return HEADER.pack(2, 0, key, 0) + struct.pack("<ff", start, end)


def frame(payload: bytes) -> bytes:
    """The record that holds `payload`: cut at every magic number that lies at a multiple of 4."""
    cuts = [i for i in _magic_places(payload) if i % 4 == 0]
    starts, ends = [0, *(i + 4 for i in cuts)], [*cuts, len(payload)]
    kinds = [FIRST, *[MIDDLE] * (len(cuts) - 1), LAST] if cuts else [WHOLE]
    framed = bytearray()
    for kind, start, end in zip(kinds, starts, ends, strict=True):
        if end - start >= 1 << LENGTH_BITS:
            raise ValueError(f"a part of {end - start} bytes; RecordIO holds less than 2^29")
        framed += struct.pack("<II", MAGIC, kind << LENGTH_BITS | end - start)
        framed += payload[start:end] + bytes(-(end - start) % 4)
    return bytes(framed)


def _magic_places(payload: bytes) -> Iterator[int]:
    place = payload.find(MAGIC_BYTES)
    while place >= 0:
        yield place
        place = payload.find(MAGIC_BYTES, place + (4 if place % 4 == 0 else 1))

"""MXNet RecordIO, read without mxnet: `train.rec` with `train.idx`.

How records lie in the file is in recordio_frames.py, how they get there in recordio_writer.py.

Two flavours: im2rec's has photos only. insightface's has records without an image besides: key 0
holds the numbers of photos and identities, keys from there on the photos of an identity each. They
are passed over; photos are told from them by their bytes.

`train.idx` gives the places; a lost or wrong one is replaced by a walk through the file. Labels are
float32: from 16,777,217 on, neighbours are one (`manyface data check` says so). `train.lst`, where
it fits, gives people the names of their folders.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyface.base.progress import Progress
from manyface.data.records.files import PlainFile, only_file
from manyface.data.records.packing_list import CONTRADICTS, PackingList, named_by
from manyface.data.records.readahead import will_need
from manyface.data.records.recordio_frames import (
    FRAME,
    HEADER,
    LAST,
    LENGTH_BITS,
    MAGIC,
    MAGIC_BYTES,
    WHOLE,
    parse_payload_header,
    read_index,
    read_payload,
    walk,
)
from manyface.data.records.store import (
    ABOUT_FILES,
    Faults,
    Found,
    Int64Array,
    RecordStore,
    UInt32Array,
    UInt64Array,
    fingerprint_of,
)

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

    def scan(self, faults: Faults, progress: Progress) -> Iterator[Found]:
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
        self, frames: UInt64Array, keys: Int64Array | None, faults: Faults, progress: Progress
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

    def will_read(self, places: UInt64Array, sizes: UInt32Array) -> None:
        offsets = (places & np.uint64(_IN_PARTS - 1)).astype(np.int64)
        will_need(self._file.descriptor, offsets, sizes.astype(np.int64))

    def describe(self, place: int) -> str:
        return f"{self.path} at byte {place & ~_IN_PARTS}"

    def notes(self) -> dict[str, str]:
        return {"headers": json.dumps(self._headers.facts())}

    def person_names(self, numbers: Int64Array) -> Sequence[str] | None:
        return None if self._list is None else self._list.person_names(numbers)

    def unlisted(self, progress: Progress) -> int:
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
        if frames[-1] > size - FRAME or (frames[1:] == frames[:-1]).any():
            return False
        data = self._file.map()
        parts = (frames[i : i + _CHUNK] for i in range(0, len(frames), _CHUNK))
        return all((_words(data, part) == MAGIC).all() for part in parts)

    def _reaches_end(self, frames: UInt64Array) -> bool:
        """Whether no record begins behind the last of `frames`, those that the index names.

        What does not fill a frame is padding; a last record that is cut off ends behind the end.
        """
        frame = int(frames[-1])
        while frame + FRAME <= self._file.size:
            magic, word = struct.unpack("<II", self._file.read(frame, FRAME))
            length = word & (1 << LENGTH_BITS) - 1
            frame += FRAME + length + -length % 4
            if magic != MAGIC or word >> LENGTH_BITS in (WHOLE, LAST):
                break
        return frame + FRAME > self._file.size

    def _found(
        self, frames: UInt64Array, data: npt.NDArray[np.uint8], faults: Faults
    ) -> tuple[Found, npt.NDArray[np.bool_]]:
        """What is a record, and which of the `frames` these are."""
        lengths = _words(data, frames + 4)
        plain = self._are_plain(frames, lengths)
        flags, labels = _flags_and_labels(data, frames, lengths, plain)
        skipped = HEADER.size + 4 * flags.astype(np.uint64)
        sizes = np.where(plain, lengths, 0).astype(np.int64) - skipped.astype(np.int64)
        places = frames + FRAME + skipped
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
        ends: UInt64Array = frames + FRAME + (lengths & (1 << LENGTH_BITS) - 1)
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
            labels = frames + FRAME + HEADER.size
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
    flags = np.where(plain, _words(data, frames + FRAME), 0).astype(np.uint32)
    label_at = frames + FRAME + np.where(flags > 0, np.uint64(HEADER.size), np.uint64(4))
    return flags, _words(data, label_at).view(np.float32).copy()

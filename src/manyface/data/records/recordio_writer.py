"""MXNet RecordIO, written in either flavour (recordio.py says what they are)."""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from manyface.base.errors import DataError
from manyface.data.records.packing_list import list_line
from manyface.data.records.recordio_frames import HEADER, LARGEST_LABEL, frame
from manyface.data.records.writer import DraftFile, Position, RecordWriter, draft_of


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
        self._files[2].write(list_line(key, person, self.identity_names[person], name))
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
        if not os.path.lexists(about):  # else it may belong to another set in this folder
            about.write_text(f"{len(self.identity_names)},{size},{size}\n{self._count}\n")
        for file in reversed(self._files):  # the records last: with them the set is there
            file.finish()

    def _write_headers(self) -> None:
        spans = list(self._spans())
        check_headers(self.path, self._count, len(spans))
        first = self._count + 1
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


def check_headers(path: Path, num_photos: int, num_people: int) -> None:
    """Raise DataError if header records cannot hold the keys of so many photos and people."""
    if num_photos + 1 + num_people > LARGEST_LABEL:
        raise DataError(
            f"{path}: header records keep numbers of photos and people as float32, exact up to "
            f"{LARGEST_LABEL}, and there are {num_photos} and {num_people}; write it without "
            "headers"
        )


def _header_record(key: int, start: int, end: int) -> bytes:
    return HEADER.pack(2, 0, key, 0) + struct.pack("<ff", start, end)

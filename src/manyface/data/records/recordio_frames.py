"""How MXNet RecordIO puts records into a file, and its index: neither images nor people.

A record (little-endian, dmlc-core src/recordio.cc):

    uint32  0xCED7230A
    uint32  upper 3 bits: 0 whole, 1 first, 2 middle, 3 last part; lower 29: length
    bytes   the payload, zeros up to a multiple of 4

Where the payload holds the magic number at a multiple of 4, it is cut there: a reader puts the four
bytes back between the parts. The payload is that of mxnet.recordio.pack: uint32 flag, float32
label, uint64 id, uint64 id2; flag = k > 0 means that k float32 labels follow, of which the first is
the class; then the encoded image.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.files import PlainFile
from manyface.data.records.store import LARGEST_IMAGE, Faults, Int64Array, UInt64Array

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2
LARGEST_LABEL = 1 << 24  # whole numbers up to here are exact in float32
WHOLE, FIRST, MIDDLE, LAST = range(4)

FRAME = 8  # magic and length


def read_payload(file: PlainFile, frame: int) -> bytes:
    """The payload of the record at byte `frame`, put together.

    Raises:
        ValueError: there is no record. OSError: the file ends before it does.
    """
    parts: list[bytes] = []
    total = 0
    while True:
        magic, word = struct.unpack("<II", file.read(frame, FRAME))
        kind, length = word >> LENGTH_BITS, word & (1 << LENGTH_BITS) - 1
        if magic != MAGIC or (kind in (WHOLE, FIRST)) != (not parts):
            raise ValueError(f"no record part at byte {frame}")
        total += length + 4
        if frame + FRAME + length > file.size or total > LARGEST_IMAGE:
            raise ValueError(f"a part of {length} bytes at byte {frame} does not fit")
        parts.append(file.read(frame + FRAME, length))
        if kind in (WHOLE, LAST):
            return MAGIC_BYTES.join(parts)
        frame += FRAME + length + -length % 4


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
    while position + FRAME <= end:
        magic, word = struct.unpack("<II", file.read(position, FRAME))
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
        position += FRAME + length + -length % 4
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

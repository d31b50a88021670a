"""Caffe's `Datum`, a protobuf message, in which LMDB sets keep an image: read and written by hand.

A message is a row of fields, each a varint of (number << 3 | kind) and a content: kind 0 a varint,
1 eight bytes, 2 a varint of its length and as many bytes, 5 four bytes. Of `Datum` count: 4 the
image (FFC's own definition has it as 1), 5 its label, 7 whether the image is encoded.
"""

from dataclasses import dataclass

from manyface.data.records.files import PlainFile

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_DATA, _LABEL, _ENCODED = (1, 4), 5, 7
_MOST_FIELDS = 64
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class Datum:
    """Place and size of the image in the file; its label; whether it says that it is encoded."""

    offset: int
    size: int
    label: int | None
    encoded: bool


def parse_datum(file: PlainFile, offset: int, size: int) -> Datum:
    """The message at `offset`; ValueError if it is none that holds an image."""
    data: tuple[int, int] | None = None
    numbers: dict[int, int] = {}
    position, end = offset, offset + size
    for _ in range(_MOST_FIELDS):
        if position == end:
            break
        tag, position = _varint(file, position, end)
        value, after = _content(file, position, end, tag & 7)
        if tag & 7 == _BYTES and tag >> 3 in _DATA:
            data = after - value, value
        elif tag & 7 == _VARINT:
            numbers[tag >> 3] = value
        position = after
    if data is None or position != end:
        raise ValueError("neither an image nor a Datum that holds one")
    label = numbers.get(_LABEL)
    if label is not None and label >= 1 << 63:
        label -= 1 << 64
    return Datum(*data, label, bool(numbers.get(_ENCODED)))


def write_datum(image: bytes, label: int) -> bytes:
    """The message with an encoded `image`, fields in ascending order."""
    fields = (b"\x22", _as_varint(len(image)), image, b"\x28", _as_varint(label), b"\x38\x01")
    return b"".join(fields)


def _content(file: PlainFile, position: int, end: int, kind: int) -> tuple[int, int]:
    """Value, or length of the bytes, of a field, and where the next begins."""
    if kind == _VARINT:
        return _varint(file, position, end)
    if kind == _BYTES:
        value, position = _varint(file, position, end)
    elif kind in (_EIGHT, _FOUR):
        value = 8 if kind == _EIGHT else 4
    else:
        raise ValueError("neither an image nor a Datum")
    if value > end - position:
        raise ValueError("a Datum that claims more bytes than it has")
    return value, position + value


def _varint(file: PlainFile, position: int, end: int) -> tuple[int, int]:
    data = file.read(position, min(_LONGEST_VARINT, end - position))
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (1 << 64) - 1, position + i + 1
    raise ValueError("a Datum with a number that does not end")


def _as_varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)

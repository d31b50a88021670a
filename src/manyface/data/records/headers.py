"""Walking the members of an uncompressed tar file: names, places and sizes, nothing extracted.

Written here because `tarfile` takes three times as long (56 against 18 microseconds of processor
time per member of LFW: of 17 million images, 16 minutes against 5) and keeps an object for each
member; it remains the oracle in the tests. Understands v7, ustar, GNU (long names, base-256 sizes)
and pax (path, linkpath, size). Devices and folders carry no data and are passed over; links come
with what they share. Sparse members are refused.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from manyface.base.errors import DataError
from manyface.data.records.remote import Location, Readable

BLOCK = 512
_LONGEST_NUMBER = 20  # digits
_REGULAR = (b"0", b"\0", b"7")
_HARD_LINK, _SYMBOLIC_LINK = b"1", b"2"
_EXTENSIONS = (b"L", b"K", b"x")
_LONGEST_EXTENSION = 1 << 20
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive; `offset` and `size` of its content in bytes.

    A link has no content: `shares` names the member whose content a hard link shares ("" in a
    symbolic link, which is not followed).
    """

    name: str
    offset: int
    size: int
    shares: str | None = None


def iterate_members(file: Readable) -> Iterator[Member]:
    """Files and links of the tar `file`, in archive order; DataError if damaged."""
    path, end = file.path, file.size
    position = 0
    extended: dict[str, str] = {}
    while position < end:
        header = file.read(position, min(BLOCK, end - position))
        if not header.strip(b"\0"):
            return
        kind, size = _check_header(header, path, position)
        if "size" in extended:
            size = _size(extended["size"], path, position)
        content = position + BLOCK
        if kind in _WITHOUT_DATA:
            size = 0
        if kind in _EXTENSIONS and size > _LONGEST_EXTENSION:
            raise DataError(f"{path} is damaged: a name of {size} bytes at byte {position}")
        if content + size > end:
            raise DataError(f"{path} is cut off: a member at byte {position} ends past its end")
        position = content + -(-size // BLOCK) * BLOCK
        if kind in _EXTENSIONS:
            extended.update(_read_extension(kind, file.read(content, size), path))
        elif kind != b"g":
            name = extended.get("path") or _plain_name(header)
            if kind in _REGULAR and not name.endswith("/"):
                yield Member(name, content, size)
            elif kind == _HARD_LINK:
                yield Member(name, content, 0, extended.get("linkpath") or _text(header[157:257]))
            elif kind == _SYMBOLIC_LINK:
                yield Member(name, content, 0, "")
            extended = {}
    if position > end:
        raise DataError(f"{path} is cut off: its last member ends past its end")


def is_tar_header(header: bytes) -> bool:
    """Whether the first 512 bytes of a file are a valid tar header."""
    return len(header) == BLOCK and bool(header.strip(b"\0")) and _checksum_fits(header)


def _checksum_fits(header: bytes) -> bool:
    try:
        wanted = _number(header[148:156])
    except ValueError:
        return False
    return sum(header[:148]) + sum(header[156:]) + 8 * ord(" ") == wanted  # the field as blanks


def _check_header(header: bytes, path: Location, position: int) -> tuple[bytes, int]:
    if len(header) < BLOCK or not _checksum_fits(header):
        raise DataError(f"{path} is damaged or cut off: no valid tar header at byte {position}")
    kind = header[156:157]
    if kind == b"S":
        raise DataError(f"{path} holds a sparse file at byte {position}; pack it without --sparse")
    try:
        return kind, _number(header[124:136])
    except ValueError:
        raise DataError(f"{path} is damaged: a member without size at byte {position}") from None


def _size(text: str, path: Location, position: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DataError(f"{path} is damaged: a member without size at byte {position}")
    return int(text)


def _number(field: bytes) -> int:
    """Octal text, or GNU's base-256 for sizes from 8 GiB on."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip() or b"0"
    if not digits.isdigit():  # int() takes a sign, and a size below 0 would lead back for ever
        raise ValueError(f"{digits!r} is no number")
    return int(digits, 8)


def _plain_name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return os.fsdecode(field.split(b"\0", 1)[0])


def _read_extension(kind: bytes, content: bytes, path: Location) -> dict[str, str]:
    if kind != b"x":
        return {"path" if kind == b"L" else "linkpath": _text(content)}
    values: dict[str, str] = {}
    position, end = 0, len(content.rstrip(b"\0"))
    while position < end:
        length_text = content[position : position + _LONGEST_NUMBER].partition(b" ")[0]
        if not length_text.isdigit() or not 0 < int(length_text) <= len(content) - position:
            raise DataError(f"{path} is damaged: a pax header that cannot be read")
        record = content[position + len(length_text) + 1 : position + int(length_text) - 1]
        key, _, value = record.partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise DataError(f"{path} holds a sparse file; pack it without --sparse")
        if key in (b"path", b"linkpath", b"size"):
            values[key.decode()] = os.fsdecode(value)
        position += int(length_text)
    return values

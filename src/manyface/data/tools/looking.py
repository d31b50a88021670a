"""One record looked at: is it a whole image, and what does it look like?"""

from dataclasses import dataclass, field

import simplejpeg

from manyface.data.decode import UInt8Array, UnreadableImageError, decode_whole
from manyface.data.image_header import ImageHeader, end_of_image, read_header
from manyface.data.records import Records
from manyface.data.records.index import checksum_of
from manyface.data.records.indexed import DamagedRecordError
from manyface.data.records.store import UInt64Array
from manyface.data.tools.near import fingerprint

_KNOWN = (b"\xff\xd8", b"\x89PNG", b"RIFF")
_TOO_EARLY = ("premature end", "truncated")


@dataclass(slots=True)
class Look:
    """What is known of a record after a look.

    Attributes:
        cases: kinds and details.
        checksum: of its bytes, 0 if they could not be read.
        size: width and height, pixels; None if it has none.
        prints: uint64 [2], for finding others like it; None if it is no picture.
    """

    cases: list[tuple[str, str]] = field(default_factory=list)
    checksum: int = 0
    size: tuple[int, int] | None = None
    prints: UInt64Array | None = None


def look_at(records: Records, record: int, *, max_pixels: int) -> Look:
    """Read and decode a record; nothing is raised."""
    look = Look()
    try:
        data = records.read(record)
    except DamagedRecordError as error:
        look.cases.append(("damaged", str(error)))
        return look
    except OSError as error:
        look.cases.append(("unreadable", error.strerror or str(error)))
        return look
    look.checksum = checksum_of(data)
    if data:
        _look_at_image(data, look, max_pixels)
    else:
        look.cases.append(("empty", ""))
    return look


def _look_at_image(data: bytes, look: Look, max_pixels: int) -> None:
    try:
        header = read_header(data)
    except UnreadableImageError as error:
        look.cases.append(_failure(data, error))
        return
    if header.width * header.height > max_pixels:
        look.cases.append(("huge", f"{header.width}x{header.height} pixels"))
        return
    try:
        pixels = _decode(data, header, look, max_pixels)
    except UnreadableImageError as error:
        look.cases.append(_failure(data, error))
        return
    look.size = header.width, header.height
    if header.colours != "RGB":
        look.cases.append(("not-rgb", header.colours))
    _look_at_end(data, look)
    if (pixels == pixels[0, 0]).all():
        look.cases.append(("constant", "colour " + " ".join(map(str, pixels[0, 0].tolist()))))
    elif not any(kind == "truncated" for kind, _ in look.cases):
        look.prints = fingerprint(pixels)


def _look_at_end(data: bytes, look: Look) -> None:
    end = end_of_image(data)
    if end is None:
        look.cases.append(("truncated", "its end is missing"))
    elif end < len(data):
        look.cases.append(("trailing", f"{len(data) - end} bytes after the image"))


def _decode(data: bytes, header: ImageHeader, look: Look, max_pixels: int) -> UInt8Array:
    """decode_image passes over bytes between two segments of a JPEG, since no pixel need be lost;
    damage looks the same."""
    if header.form == "JPEG" and header.colours in ("RGB", "grey"):
        try:
            pixels: UInt8Array = simplejpeg.decode_jpeg(data)
            return pixels
        except ValueError as error:
            if "extraneous bytes" in str(error):
                look.cases.append(("odd-bytes", str(error)))
    return decode_whole(data, max_pixels=max_pixels)


def _failure(data: bytes, error: UnreadableImageError) -> tuple[str, str]:
    """What kind of bytes cannot be decoded: those that stop too early, or others."""
    text = str(error)
    cut = data.startswith(_KNOWN) and end_of_image(data) is None
    early = any(words in text.lower() for words in _TOO_EARLY)
    return ("truncated" if cut or early else "broken"), text


def as_code(size: tuple[int, int] | None) -> int:
    """Width and height in 32 bits; 0 for none."""
    return 0 if size is None else min(size[0], 0xFFFF) << 16 | min(size[1], 0xFFFF)


def from_code(code: int) -> tuple[int, int]:
    """What `as_code` was given."""
    return code >> 16, code & 0xFFFF

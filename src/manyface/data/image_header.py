"""What the bytes of an image say of themselves, before any pixel is decoded; where they end.

`manyface data inspect` and `check` ask this of every image: its size before memory is taken for it,
its format and colours, and whether something is missing at its end or follows it. The loader needs
none of it (decode.py).
"""

import io
import re
import struct
from dataclasses import dataclass

import simplejpeg
from PIL import Image

from manyface.data.decode import PILLOW_FORMATS, UnreadableImageError

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
# In compressed data 0xFF is followed by 0 or by a restart marker; anything else ends it.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an encoded image claims to be.

    Attributes:
        form: JPEG, PNG, WEBP, ..., as Pillow calls it.
        width, height: pixels.
        colours: "RGB" for what becomes RGB without a loss; else "grey", "CMYK", "alpha" or
            Pillow's name of the mode.
    """

    form: str
    width: int
    height: int
    colours: str


def read_header(data: bytes) -> ImageHeader:
    """The header of an encoded image.

    Raises:
        UnreadableImageError: it has none that can be read.
    """
    try:
        return _read_jpeg_header(data) if data[:2] == _JPEG else _read_other_header(data)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def end_of_image(data: bytes) -> int | None:
    """Bytes up to the end that the format marks; None where the mark is missing.

    The length of `data` for formats without a mark (BMP, PPM, TIFF).
    """
    if data[:2] == _JPEG:
        if data.endswith(_END_OF_JPEG) and data.count(_END_OF_JPEG) == 1:
            return len(data)
        return _end_of_jpeg(data)
    if data[:8] == _PNG:
        return _end_of_png(data)
    if data[:4] == b"RIFF" and len(data) >= 12:
        size = 8 + int.from_bytes(data[4:8], "little")
        return None if size > len(data) else size
    return len(data)


def _read_jpeg_header(data: bytes) -> ImageHeader:
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _read_other_header(data)  # such as unusual subsampling, or bytes between segments
    colours = {"YCbCr": "RGB", "Gray": "grey", "YCCK": "CMYK"}.get(colourspace, colourspace)
    return ImageHeader("JPEG", width, height, colours)


def _read_other_header(data: bytes) -> ImageHeader:
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 33:
        return _read_png_header(data)  # Pillow refuses large ones in words of its own
    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        return ImageHeader(str(image.format), image.width, image.height, _colours(image))


def _read_png_header(data: bytes) -> ImageHeader:
    width, height, _, kind = struct.unpack(">IIBB", data[16:26])
    transparent = kind in (4, 6) or b"tRNS" in data[33:4096].partition(b"IDAT")[0]
    colours = "alpha" if transparent else "grey" if kind == 0 else "RGB"
    return ImageHeader("PNG", width, height, colours)


def _colours(image: Image.Image) -> str:
    if "A" in image.getbands() or "transparency" in image.info:
        return "alpha"
    if image.mode in ("L", "1", "LA") or image.mode.startswith("I"):
        return "grey"
    return "RGB" if image.mode in ("RGB", "P", "YCbCr") else image.mode


def _end_of_jpeg(data: bytes) -> int | None:
    place = 2
    while place + 2 <= len(data):
        if data[place] != 0xFF:
            found = _NEXT_MARKER.search(data, place)  # stray bytes between segments
            if found is None:
                return None
            place = found.start()
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        place += 2 + max(length, 2)
        if marker == 0xDA:  # the compressed data
            found = _NEXT_MARKER.search(data, place)
            if found is None:
                return None
            place = found.start()
    return None


def _end_of_png(data: bytes) -> int | None:
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        place += 12 + length
        if kind == b"IEND":
            return place if place <= len(data) else None
    return None

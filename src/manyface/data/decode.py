"""One encoded image -> RGB pixels; whatever a stranger's file has wrong is one kind of error.

JPEG goes to simplejpeg (libjpeg-turbo; it writes straight into the given buffer and frees the
interpreter lock, so threads scale; benchmarks/decode.py measures it against Pillow and OpenCV).
Everything else, and JPEG in colour spaces it does not turn into RGB (CMYK), goes to Pillow.

What comes out of unusual images: grey becomes three equal channels; 16-bit grey keeps its upper 8
bits; transparent pixels lie over black, the border colour of aligned faces; of several frames the
first counts; the EXIF orientation is not applied, because aligned faces have none that is right.
The size is read from the header and capped before any pixel is decoded: 10 KB of PNG can ask for
240 MB.
"""

import io
import struct
from typing import cast

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

UInt8Array = npt.NDArray[np.uint8]

MAX_PIXELS = 16 << 20  # of an image of a set: far more than a face needs; 48 MiB decoded
MAX_PHOTO_PIXELS = 64 << 20  # where a face is looked for: what cameras and telephones take
PILLOW_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")
_FRAME = b"\xff\xc0\x00\x11\x08"  # baseline, 17 bytes, 8 bits a sample; then height, width, colours
_HEAD_BYTES = 2048
_SHRINK_FROM = 4  # JPEGs this many times larger than needed are decoded at a fraction of their size


class UnreadableImageError(ValueError):
    """The bytes are no image that can be used; the message says why."""


def decode_image(
    data: bytes, *, out: UInt8Array, max_pixels: int = MAX_PIXELS
) -> UInt8Array | None:
    """Decode `data` into `out` if it has exactly that size.

    Args:
        data: an encoded image.
        out: uint8 [S, S, 3], contiguous; undefined unless None is returned.
        max_pixels: larger images are refused unseen.

    Returns: None if `out` holds the image, else its pixels, uint8 [H, W, 3], still to be resized.
    """
    return _decode(data, out, max_pixels)


def decode_whole(data: bytes, *, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """All pixels of an encoded image as they are, uint8 [H, W, 3]; as `decode_image` otherwise."""
    return cast(UInt8Array, _decode(data, None, max_pixels))  # None is for pixels put elsewhere


def _decode(data: bytes, out: UInt8Array | None, max_pixels: int) -> UInt8Array | None:
    if not data:
        raise UnreadableImageError("the file is empty")
    try:
        if data[:2] == b"\xff\xd8":
            return _decode_jpeg(data, out, max_pixels)
        return _decode_with_pillow(data, out, max_pixels)
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:  # its own message names a buffer in memory
        raise UnreadableImageError("no image, or none of a known format") from error
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _decode_jpeg(data: bytes, out: UInt8Array | None, max_pixels: int) -> UInt8Array | None:
    try:
        if out is not None and _decode_plain(data, out, max_pixels):
            return None
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(height, width, max_pixels)
        if colorspace in ("YCbCr", "Gray", "RGB"):
            return _decode_with_simplejpeg(data, out, height, width)
    except UnreadableImageError:
        raise
    except ValueError as error:
        # Bytes between two segments lose no pixel, but simplejpeg insists; Pillow passes over them.
        # Every other complaint means damaged pixels, which Pillow would let through.
        if "extraneous bytes" not in str(error):
            raise UnreadableImageError(f"damaged JPEG ({error})") from error
    return _decode_with_pillow(data, out, max_pixels)


def _decode_plain(data: bytes, out: UInt8Array, max_pixels: int) -> bool:
    """Decode a baseline JPEG of three colours and of the size of `out`, as nearly all aligned faces
    are; False for others, and for one behind a thumbnail.

    simplejpeg would tell the size too, but gives up the interpreter's lock meanwhile, and threads
    that decode would wait for it once more.
    """
    side = len(out)
    place = data.find(_FRAME + struct.pack(">HHB", side, side, 3), 0, _HEAD_BYTES)
    if place < 0 or data.find(b"\xff\xd8", 2, place) >= 0 or side**2 > max_pixels:
        return False
    found: UInt8Array = simplejpeg.decode_jpeg(data, buffer=out)
    return found.shape == out.shape


def _decode_with_simplejpeg(
    data: bytes, out: UInt8Array | None, height: int, width: int
) -> UInt8Array | None:
    pixels: UInt8Array
    if out is None:
        pixels = simplejpeg.decode_jpeg(data)
        return pixels
    side = out.shape[0]
    if (height, width) == (side, side):
        simplejpeg.decode_jpeg(data, buffer=out)
        return None
    if min(height, width) >= _SHRINK_FROM * side:
        # libjpeg shrinks by fractions of 8 while decoding; twice the wanted size is left for the
        # antialiasing filter.
        pixels = simplejpeg.decode_jpeg(data, min_height=2 * side, min_width=2 * side, min_factor=2)
    else:
        pixels = simplejpeg.decode_jpeg(data)
    return pixels


def _decode_with_pillow(data: bytes, out: UInt8Array | None, max_pixels: int) -> UInt8Array | None:
    _check_png_size(data, max_pixels)
    with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
        _check_size(image.height, image.width, max_pixels)
        pixels = _to_rgb(image)
    if out is None or pixels.shape != out.shape:
        return pixels
    out[...] = pixels
    return None


def _to_rgb(image: Image.Image) -> UInt8Array:
    """uint8 [H, W, 3] from any mode of Pillow's."""
    if image.mode.startswith("I"):  # 16-bit grey, "I;16" from PNG, "I" from PGM
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise UnreadableImageError("pixels are floating-point numbers; save it with 8 bits")
    if "A" in image.getbands() or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        opacity = pixels[:, :, 3:].astype(np.uint16)
        return ((pixels[:, :, :3] * opacity + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1 or height * width > max_pixels:
        raise UnreadableImageError(
            f"{width}x{height} pixels; expected 1 to {max_pixels} pixels in all"
        )


def _check_png_size(data: bytes, max_pixels: int) -> None:
    # Before Pillow, which warns of, or refuses, very large images in words of its own.
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        _check_size(height, width, max_pixels)

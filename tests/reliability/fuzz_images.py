"""Images with damage in them, of every format that is read (fuzzing.py)."""

import io
import random
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from wounds import mutated

from manyface.data.decode import UnreadableImageError, decode_image, decode_whole
from manyface.data.image_header import end_of_image, read_header

SIDE = 24
FORMS = (
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": 0}),
    ("PNG", "I;16", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("BMP", "RGB", {}),
    ("PPM", "RGB", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("GIF", "P", {}),
)


@cache
def good(number: int) -> bytes:
    form, mode, options = FORMS[number % len(FORMS)]
    side = SIDE if number < len(FORMS) else 5 * SIDE
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_case(folder: Path, number: int) -> Path:
    rng = random.Random(number)
    path = folder / "image"
    path.write_bytes(mutated(good(rng.randrange(2 * len(FORMS))), rng))
    return path


def read_case(path: Path) -> None:
    """Decoded as for training and as it is, and what it says of itself."""
    data = path.read_bytes()
    with suppress(UnreadableImageError):
        pixels = decode_image(data, out=np.empty((SIDE, SIDE, 3), np.uint8))
        assert pixels is None or pixels.ndim == 3
    with suppress(UnreadableImageError):
        assert decode_whole(data).dtype == np.uint8
    with suppress(UnreadableImageError):
        read_header(data)
    end = end_of_image(data)
    assert end is None or end <= len(data)

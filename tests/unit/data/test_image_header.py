"""What images say of themselves, and where they end."""

import random
from contextlib import suppress

import pytest
from pictures import encoded, smooth_pixels

from manyface.data.decode import UnreadableImageError, decode_whole
from manyface.data.image_header import end_of_image, read_header


def saved(mode: str, form: str, **options) -> bytes:
    return encoded(smooth_pixels(1, size=30)[:20], form, mode=mode, **options)


@pytest.mark.parametrize(
    ("mode", "form", "colours"),
    [
        ("RGB", "JPEG", "RGB"),
        ("L", "JPEG", "grey"),
        ("CMYK", "JPEG", "CMYK"),
        ("RGB", "PNG", "RGB"),
        ("P", "PNG", "RGB"),
        ("L", "PNG", "grey"),
        ("LA", "PNG", "alpha"),
        ("RGBA", "PNG", "alpha"),
        ("RGB", "WEBP", "RGB"),
        ("RGB", "BMP", "RGB"),
        ("L", "PPM", "grey"),
    ],
)
def test_header_of_every_format(mode, form, colours):
    data = saved(mode, form)
    header = read_header(data)
    assert (header.form, header.width, header.height) == (form, 30, 20)
    assert header.colours == colours
    assert decode_whole(data).shape == (20, 30, 3)


def test_a_png_with_a_transparent_colour_has_alpha():
    assert read_header(saved("P", "PNG", transparency=0)).colours == "alpha"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100}])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_end_is_found_and_missed(form, options):
    data = saved("RGB", form, **(options if form == "JPEG" else {}))
    assert end_of_image(data) == len(data)
    assert end_of_image(data + b"junk\xff\xd9junk") == len(data)
    for cut in range(12, len(data)):
        assert end_of_image(data[:cut]) is None


def test_the_end_of_a_thumbnail_inside_is_not_the_end():
    thumbnail = encoded(smooth_pixels(2, size=8))
    data = encoded(smooth_pixels(1), exif=b"Exif\0\0" + thumbnail)
    assert data.count(b"\xff\xd9") == 2
    assert end_of_image(data) == len(data)


def test_nothing_but_its_own_error_for_any_bytes():
    rng = random.Random(0)
    for _ in range(2000):
        data = bytearray(saved("RGB", rng.choice(["JPEG", "PNG", "WEBP"])))
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        end_of_image(bytes(data))
        with suppress(UnreadableImageError):
            read_header(bytes(data[: rng.randrange(len(data))]))

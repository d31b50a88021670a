"""Pixels of ordinary and of unusual images; a clear refusal of everything else."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from manyface.data.decode import UnreadableImageError, decode_image

SIZE = 24


def smooth_pixels(*, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """uint8 [height, width, 3] that survives JPEG nearly unchanged."""
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    planes = (columns / width, rows / height, 0.5 + 0.3 * np.sin(rows / height * 3))
    return (np.stack(planes, axis=-1) * 255).astype(np.uint8)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decode(data: bytes, *, size: int = SIZE, **options: int) -> np.ndarray:
    out = np.zeros((size, size, 3), np.uint8)
    pixels = decode_image(data, out=out, **options)
    return out if pixels is None else pixels


def mean_error(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(float) - right).mean())


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 1) * 16))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_lossless_formats_are_exact():
    pixels = smooth_pixels()
    for form in ("PNG", "PPM", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode(encode(Image.fromarray(pixels), form)), pixels)


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_jpeg_agrees_with_pillow(options):
    data = encode(Image.fromarray(smooth_pixels()), "JPEG", quality=95, **options)
    reference = np.asarray(Image.open(io.BytesIO(data)))
    assert mean_error(decode(data), reference) < 1
    assert mean_error(decode(data), smooth_pixels()) < 4


def test_other_sizes_come_back_as_they_are():
    data = encode(Image.fromarray(smooth_pixels(height=30, width=40)), "JPEG")
    assert decode(data).shape == (30, 40, 3)


def test_large_jpegs_are_shrunk_while_decoding():
    data = encode(Image.fromarray(smooth_pixels(height=400, width=300)), "JPEG")
    height, width, _ = decode(data).shape
    assert 2 * SIZE <= width < 150
    assert abs(height / width - 4 / 3) < 0.05


def test_grey_has_three_equal_channels():
    grey = smooth_pixels()[:, :, 0]
    for form in ("PNG", "PPM", "JPEG"):
        pixels = decode(encode(Image.fromarray(grey), form, quality=100))
        assert mean_error(pixels, np.repeat(grey[:, :, None], 3, axis=2)) < 2


def test_sixteen_bits_keep_the_upper_eight():
    grey = smooth_pixels()[:, :, 0]
    deep = grey.astype(np.uint16) * 256 + 200
    pgm = f"P5\n{SIZE} {SIZE}\n65535\n".encode() + deep.astype(">u2").tobytes()
    for data in (encode(Image.fromarray(deep), "PNG"), pgm):
        np.testing.assert_array_equal(decode(data), np.repeat(grey[:, :, None], 3, axis=2))


def test_transparent_pixels_lie_over_black():
    pixels = smooth_pixels()
    alpha = np.zeros((SIZE, SIZE, 1), np.uint8)
    alpha[: SIZE // 2] = 255
    decoded = decode(encode(Image.fromarray(np.concatenate((pixels, alpha), axis=2)), "PNG"))
    np.testing.assert_array_equal(decoded[: SIZE // 2], pixels[: SIZE // 2])
    assert not decoded[SIZE // 2 :].any()


def test_palettes_with_transparency():
    image = Image.fromarray(smooth_pixels()).quantize(8)
    data = encode(image, "PNG", transparency=bytes([0, *[255] * 7]))
    assert decode(data).shape == (SIZE, SIZE, 3)


def test_cmyk_jpeg():
    data = encode(Image.fromarray(smooth_pixels()).convert("CMYK"), "JPEG", quality=95)
    assert mean_error(decode(data), smooth_pixels()) < 6


def test_bytes_between_segments_do_no_harm():
    data = encode(Image.fromarray(smooth_pixels()), "JPEG")
    np.testing.assert_array_equal(decode(data[:20] + b"\0" * 5 + data[20:]), decode(data))


def test_every_truncation_is_noticed():
    for form in ("JPEG", "PNG"):
        data = encode(Image.fromarray(smooth_pixels()), form)
        tail = 0 if form == "JPEG" else 20  # checksums and end marker hold no pixel
        for length in range(0, len(data) - tail, 13):
            with pytest.raises(UnreadableImageError):
                decode(data[:length])


def test_strange_bytes_are_refused_and_nothing_else_escapes():
    random = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "BMP"):
        data = np.frombuffer(encode(Image.fromarray(smooth_pixels()), form), np.uint8)
        for _ in range(100):
            damaged = data.copy()
            damaged[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
            try:
                pixels = decode(damaged.tobytes())
            except UnreadableImageError:
                continue
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4"])
def test_what_is_no_image(data):
    with pytest.raises(UnreadableImageError):
        decode(data)


def test_floating_point_images_are_refused():
    image = Image.fromarray(np.zeros((SIZE, SIZE), np.float32))
    with pytest.raises(UnreadableImageError, match="floating-point"):
        decode(encode(image, "TIFF"))


def test_the_size_is_capped_before_decoding():
    data = huge_png(20_000)
    assert len(data) < 10_000
    with pytest.raises(UnreadableImageError, match="20000x20000 pixels"):
        decode(data)
    jpeg = encode(Image.fromarray(smooth_pixels(height=40, width=50)), "JPEG")
    with pytest.raises(UnreadableImageError, match="50x40 pixels; expected 1 to 1999"):
        decode(jpeg, max_pixels=1999)
    assert decode(jpeg, max_pixels=2000).shape == (40, 50, 3)


def jpeg(size: int) -> bytes:
    pixels = smooth_pixels(height=size, width=size)
    return encode(Image.fromarray(pixels), "JPEG", quality=95)


def test_the_frame_of_a_thumbnail_is_not_that_of_the_image():
    """A JPEG that begins with another one of the wanted size, as cameras write them."""
    small = jpeg(24)
    for size in (24, 40, 16):
        image = jpeg(size)
        both = image[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + image[2:]
        out = np.zeros((24, 24, 3), np.uint8)
        found = decode_image(both, out=out)
        expected = decode_image(image, out=np.zeros((size, size, 3), np.uint8))
        assert expected is None
        assert (found is None) == (size == 24)
        assert (out if found is None else found).shape == (size, size, 3)
        plain = np.zeros((size, size, 3), np.uint8)
        decode_image(image, out=plain)
        assert np.array_equal(out if found is None else found, plain)


def test_a_frame_that_lies_in_other_data_is_not_believed():
    frame = b"\xff\xc0\x00\x11\x08" + (24).to_bytes(2, "big") * 2 + b"\x03"
    comment = b"\xff\xfe" + (len(frame) + 2).to_bytes(2, "big") + frame
    image = jpeg(16)
    out = np.zeros((24, 24, 3), np.uint8)
    found = decode_image(image[:2] + comment + image[2:], out=out)
    assert found is not None
    assert found.shape == (16, 16, 3)

"""Encoded images and small sets made on the spot, for the tests of formats and tools."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from manyface.data.records.recordio_writer import RecordIOWriter


def smooth_pixels(seed: int, *, size: int = 112) -> np.ndarray:
    """uint8 [size, size, 3]: smooth, so that JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, form: str = "JPEG", *, mode: str = "RGB", **options: object):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def face(seed: int, *, size: int = 112) -> bytes:
    return encoded(smooth_pixels(seed, size=size), quality=90)


def write_folder(root: Path, people: dict[str, dict[str, bytes]]) -> Path:
    for person, images in people.items():
        (root / person).mkdir(parents=True)
        for name, data in images.items():
            (root / person / name).write_bytes(data)
    return root


def write_recordio(path: Path, people: dict[str, dict[str, bytes]], **options: object) -> Path:
    writer = RecordIOWriter(path, identity_names=list(people), **options)
    for person, images in enumerate(people.values()):
        for name, data in images.items():
            writer.add(data, person=person, name=name)
    writer.finish()
    return path

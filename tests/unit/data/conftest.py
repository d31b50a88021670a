"""Small face folders made on the spot, and the real sets where they are present."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"


def smooth_pixels(seed: int, *, height: int = 24, width: int = 24) -> np.ndarray:
    """uint8 [height, width, 3]: smooth, so that JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def write_faces(tmp_path: Path) -> Callable[..., Path]:
    """write_faces({"Ann": 3, "Bob": 2}) -> folder of persons with JPEGs named 0001.jpg on."""

    def write(people: dict[str, int], *, folder: str = "faces", size: int = 24) -> Path:
        root = tmp_path / folder
        seed = 0
        for person, num_images in people.items():
            (root / person).mkdir(parents=True)
            for number in range(1, num_images + 1):
                seed += 1
                data = encode(smooth_pixels(seed, height=size, width=size), quality=95)
                (root / person / f"{number:04d}.jpg").write_bytes(data)
        return root

    return write


@pytest.fixture
def lfw_tar() -> Path:
    return _real("lfw-112.tar")


@pytest.fixture
def orl_tar() -> Path:
    return _real("orl.tar")


@pytest.fixture
def small_lfw_bin() -> Path:
    return _real("format-samples/arcface_paddle-test_tipc/small_lfw.bin")


def _real(name: str) -> Path:
    path = REAL_DATA / name
    if not path.is_file():
        pytest.skip(f"no real faces here ({path})")
    return path

"""Images as people have them -> faces as a model takes them: decoded, of one size, aligned.

Aligned faces are fed as they are. A photo that is not aligned gives an embedding too, and a bad
one: so another size than the model's is an error until somebody says what to do about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from manyface.base.errors import DataError
from manyface.data.align import FindPoints, align
from manyface.data.align_set import upright
from manyface.data.decode import MAX_PHOTO_PIXELS, MAX_PIXELS, UnreadableImageError, decode_whole
from manyface.data.records.files import read_whole
from manyface.data.records.store import LARGEST_IMAGE

UInt8Array = npt.NDArray[np.uint8]
# uint8 [H, W, 3] RGB; the path of an image file; its bytes
Photo = npt.NDArray[Any] | str | Path | bytes | Tensor


@dataclass(frozen=True)
class Reading:
    """How images become faces of `image_size` pixels.

    Attributes:
        image_size: S.
        resize: stretch other sizes to it, for faces that are aligned.
        find: finds the landmarks by which photos are aligned; None where they are aligned already.
    """

    image_size: int
    resize: bool = False
    find: FindPoints | None = None

    def face(self, photo: Photo, *, name: str = "") -> UInt8Array:
        """The face of one image, uint8 [S, S, 3] RGB; errors begin with its `name`, if it has one.

        Raises:
            DataError: it cannot be read, has another size, or shows no face.
        """
        try:
            return self._face(photo, name)
        except DataError as error:
            if not name:
                raise
            raise DataError(f"{name}: {error}") from error

    def _face(self, photo: Photo, name: str) -> UInt8Array:
        pixels = self._pixels(photo)
        if self.find is not None:
            return self._aligned(pixels, name)
        if pixels.shape[:2] == (self.image_size, self.image_size):
            return pixels
        if not self.resize:
            raise DataError(_another_size(pixels.shape, self.image_size))
        return resized(pixels, self.image_size)

    def _pixels(self, photo: Photo) -> UInt8Array:
        if not isinstance(photo, str | Path | bytes):
            return _checked(photo)
        try:
            data = photo if isinstance(photo, bytes) else read_whole(photo, limit=LARGEST_IMAGE)
            most = MAX_PIXELS if self.find is None else MAX_PHOTO_PIXELS
            pixels = decode_whole(data, max_pixels=most)
        except OSError as error:
            raise DataError(error.strerror or str(error)) from error
        except UnreadableImageError as error:
            raise DataError(str(error)) from error
        # Aligned faces have no orientation that is right (decode.py); a photo has.
        return pixels if self.find is None else upright(pixels, data)

    def _aligned(self, pixels: UInt8Array, name: str) -> UInt8Array:
        assert self.find is not None  # noqa: S101  (the caller asked)
        size = self.image_size
        drawn = size if size % 112 == 0 or size % 128 == 0 else 112  # sizes that have a template
        face = align(pixels, self.find(name, pixels), size=drawn)
        return face if drawn == size else resized(face, size)


def check_several(images: Sequence[Photo]) -> None:
    """Refuse one image where several are taken: its rows or letters are none.

    Raises:
        DataError: it is one, or they cannot be counted.
    """
    shape = getattr(images, "shape", None)
    if not hasattr(images, "__len__") and not isinstance(images, Path):
        raise DataError(f"expected a list of images, got {type(images).__name__}: embed(list(...))")
    if isinstance(images, str | Path | bytes) or (shape is not None and len(shape) == 3):
        raise DataError("expected a list of images, got one; put it in a list: embed([image])")


def resized(pixels: UInt8Array, size: int) -> UInt8Array:
    """uint8 [H, W, 3] -> [size, size, 3], as training resizes: bilinear, antialiased, stretched."""
    stack = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]  # [1, 3, H, W]; writable
    small = interpolate(stack, (size, size), mode="bilinear", antialias=True)
    face: UInt8Array = small[0].permute(1, 2, 0).contiguous().numpy()
    return face


def _checked(photo: npt.NDArray[Any] | Tensor) -> UInt8Array:
    pixels = photo.numpy(force=True) if isinstance(photo, Tensor) else np.asarray(photo)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"expected pixels [H, W, 3] in RGB, got {list(pixels.shape)}")
    if pixels.dtype != np.uint8:
        raise DataError(f"expected uint8 pixels (0 to 255), got {pixels.dtype}")
    return pixels


def _another_size(shape: tuple[int, ...], size: int) -> str:
    return (
        f"it has {shape[1]}x{shape[0]} pixels, but the model takes aligned faces of "
        f"{size}x{size}: align photos first (manyface data align), or now (--align, align=True); "
        "faces that are aligned alike can be resized (--resize, resize=True)"
    )

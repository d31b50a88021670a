"""Noise that is looked up, not computed: banks made once, of which each picture gets its own part.

The place of a picture's part depends on (seed, identity, instance) only. Sums and products of
hashed uniforms, no library's normal deviates: the same bits everywhere.
"""

import numpy as np
import torch
from torch import Tensor

from manyface.base.random import hash_uniform
from manyface.data.synthetic.draws import Floats

_BANK_SEED = 20220616  # of the texture itself; never of who or what is shown
_MARGIN = 192  # positions along each axis


class Textures:
    """Sensor grain, blotches and strands for images of one size."""

    def __init__(self, image_size: int) -> None:
        side = image_size + _MARGIN
        uniforms = hash_uniform(_BANK_SEED, np.arange(4 * side * side).reshape(4, side, side))
        white = (uniforms[0] + uniforms[1] + uniforms[2] + uniforms[3] - 2.0) * 1.7
        self._size = image_size
        self._grain = _parts(white, image_size)
        reach = max(2, image_size // 10)
        blotches = _smooth(_smooth(_smooth(white, reach, 0), reach, 1), reach, 0)
        self._blotches = _parts(_smooth(blotches, reach, 1) * (1.2 * reach), image_size)
        strands = _smooth(_smooth(white, reach, 0), reach // 2, 0)
        self._strands = _parts(strands * 3.0, image_size)

    def grain(self, x: Tensor, y: Tensor) -> Tensor:
        """Unit-variance grain `[3, B, S, S]`; x and y are uniform `[B, 1, 1]`."""
        rows, columns = _places(y), _places(x)
        shifts = np.arange(3)[:, None] * 61
        return _cut(self._grain, (rows + shifts) % _MARGIN, (columns + 2 * shifts) % _MARGIN)

    def blotches(self, x: Tensor, y: Tensor) -> Tensor:
        """Smooth spots, `[B, S, S]`."""
        return _cut(self._blotches, _places(y), _places(x))

    def strands(self, x: Tensor, y: Tensor) -> Tensor:
        """Vertical strands, `[B, S, S]`."""
        return _cut(self._strands, _places(y), _places(x))


def _places(uniforms: Tensor) -> np.ndarray:
    return (uniforms[:, 0, 0].numpy() * _MARGIN).astype(np.int64)


def _cut(parts: Floats, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    return torch.from_numpy(parts[rows, columns])


def _parts(bank: Floats, size: int) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(bank, (size, size))


def _smooth(bank: Floats, reach: int, axis: int) -> Floats:
    """Mean over `reach` neighbours along an axis, with wrap-around."""
    total = bank
    for shift in range(1, reach):
        total = total + np.roll(bank, shift, axis)
    return total * np.float32(1.0 / reach)

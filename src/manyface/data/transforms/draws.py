"""Random numbers of a slice of samples, by purpose.

Every purpose has a lane of its own, so switching one augmentation on or off leaves the draws of all
others as they were.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.random import hash_uniform

Float32Array = npt.NDArray[np.float32]

_CPU = torch.device("cpu")


class Lane(IntEnum):
    """The number of a purpose is part of the file format of randomness: append, never renumber."""

    FLIP = 0
    SHIFT_X = 1
    SHIFT_Y = 2
    ROTATE = 3
    SCALE = 4
    BRIGHTNESS = 5
    CONTRAST = 6
    SATURATION = 7
    GREY = 8
    BLUR = 9
    BLUR_SIGMA = 10
    LOW_RESOLUTION = 11
    LOW_RESOLUTION_SIDE = 12
    ERASE = 13
    ERASE_AREA = 14
    ERASE_ASPECT = 15
    ERASE_X = 16
    ERASE_Y = 17
    ERASE_RED = 18
    ERASE_GREEN = 19
    ERASE_BLUE = 20


class Draws:
    """Draws for samples at `positions` (int [B]), or for a slice of them.

    Numbers are made once for the whole batch, then cut: a call costs more than its numbers. They
    are made on the CPU and, where images are on another `device`, moved there.
    """

    def __init__(
        self,
        seed: int,
        positions: npt.NDArray[np.int64],
        *,
        device: torch.device = _CPU,
    ) -> None:
        self._seed, self._positions, self.device = seed, positions, device
        self._known: dict[Lane, Float32Array] = {}
        self._part = slice(None)

    def part(self, part: slice) -> "Draws":
        """The draws of the samples in `part` of the batch."""
        cut = Draws(self._seed, self._positions, device=self.device)
        cut._known, cut._part = self._known, part
        return cut

    def uniform(self, lane: Lane, low: float = 0.0, high: float = 1.0) -> Float32Array:
        """float32 [b] in [low, high)."""
        if lane not in self._known:
            self._known[lane] = hash_uniform(self._seed, self._positions, lane=int(lane))
        return self._known[lane][self._part] * np.float32(high - low) + np.float32(low)

    def chosen(self, lane: Lane, probability: float) -> npt.NDArray[np.int64]:
        """Which of the b samples are hit: int64, ascending."""
        return np.flatnonzero(self.uniform(lane) < probability)

    def column(self, lane: Lane, low: float, high: float) -> torch.Tensor:
        """float32 [b, 1, 1, 1] in [low, high), ready to be multiplied with images."""
        return self.as_column(self.uniform(lane, low, high))

    def as_column(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        """[b, ...] -> the same on the device, [b, ..., 1, 1, 1], ready to be multiplied."""
        return self.moved(values)[..., None, None, None]

    def moved(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        """The same on the device."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)

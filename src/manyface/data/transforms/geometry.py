"""Mirror, shift, rotation and scale.

Alone, the mirror and the shift by whole pixels copy values; together with rotation or scale, all
four become one affine map and the image is resampled once, bilinearly.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from manyface.data.transforms.draws import Draws, Float32Array, Lane
from manyface.data.transforms.options import Augmentation

Int64Array = npt.NDArray[np.int64]


def place(images: Tensor, out: Tensor, draws: Draws, options: Augmentation) -> None:
    """Copy into `out` float32 [b, 3, S, S], shifted by whole pixels (border repeated), mirrored.

    `images`: uint8 [b, S, S, 3]. Bytes are mirrored, which torch does many pixels at a time for
    colours that lie together, and then become floats.
    """
    side = images.shape[1]
    reach, columns, rows, mirrored = whole_steps(side, draws, options)
    if reach:
        around = ((0, 0), (reach, reach), (reach, reach), (0, 0))
        images = torch.from_numpy(np.pad(images.numpy(), around, mode="edge"))
    for source, target, top, left, mirror in zip(
        images.permute(0, 3, 1, 2), out, rows.tolist(), columns.tolist(), mirrored.tolist(),
        strict=True,
    ):  # fmt: skip
        window = source[:, top : top + side, left : left + side]  # [3, S, S]
        target.copy_(window.flip(-1) if mirror else window)


def whole_steps(
    side: int, draws: Draws, options: Augmentation
) -> tuple[int, Int64Array, Int64Array, npt.NDArray[np.bool_]]:
    """Padding `reach`; column and row where each window begins in the padded image, int64 [b],
    even in 0 to 2 reach; and whether it is mirrored, bool [b]."""
    reach = min(side, round(options.shift_pixels(side)))
    columns, rows = (
        (draws.uniform(lane) * (2 * reach + 1)).astype(np.int64)
        for lane in (Lane.SHIFT_X, Lane.SHIFT_Y)
    )
    return reach, columns, rows, draws.uniform(Lane.FLIP) < options.flip


def warp(images: Tensor, draws: Draws, options: Augmentation) -> Tensor:
    """Mirror, turn, scale and shift float [b, 3, S, S] about the image's center; same shape."""
    maps = draws.moved(_affine_maps(images.shape[-1], draws, options))
    grid = _sampling_grid(maps, images.shape[-1])
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _affine_maps(side: int, draws: Draws, options: Augmentation) -> Float32Array:
    """float32 [b, 2, 3]: output place -> input place, in units of half the side from the center."""
    turn = math.radians(options.rotate_degrees)
    angle = draws.uniform(Lane.ROTATE, -turn, turn)
    growth = math.log1p(options.scale)
    inverse_scale = np.exp(-draws.uniform(Lane.SCALE, -growth, growth))
    reach = 2 * options.shift_pixels(side) / side
    mirror = np.where(draws.uniform(Lane.FLIP) < options.flip, np.float32(-1), np.float32(1))
    cos, sin = np.cos(angle) * inverse_scale, np.sin(angle) * inverse_scale
    x_row = [cos * mirror, -sin, draws.uniform(Lane.SHIFT_X, -reach, reach)]
    y_row = [sin * mirror, cos, draws.uniform(Lane.SHIFT_Y, -reach, reach)]
    maps = np.stack([np.stack(x_row, axis=-1), np.stack(y_row, axis=-1)], axis=1)
    return maps.astype(np.float32)  # [b, 2, 3]


def _sampling_grid(maps: Tensor, side: int) -> Tensor:
    """float32 [b, S, S, 2], x then y. By broadcasting: affine_grid takes 10 times as long."""
    centers = torch.arange(side, dtype=torch.float32, device=maps.device)  # [S]
    centers.mul_(2).add_(1).div_(side).sub_(1)
    place = maps[:, None, None]  # [b, 1, 1, 2, 3]
    along_x = place[..., 0] * centers[:, None]  # [b, 1, S, 2]
    along_y = place[..., 1] * centers[:, None, None] + place[..., 2]  # [b, S, 1, 2]
    return along_x + along_y

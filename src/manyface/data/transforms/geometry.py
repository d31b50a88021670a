"""Mirror, shift, rotation and scale.

Alone, the mirror and the shift by whole pixels copy values; together with rotation or scale, all
four become one affine map and the image is resampled once, bilinearly."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from manyface.data.transforms.draws import Draws, Float32Array, Lane
from manyface.data.transforms.options import Augmentation


def flip(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Mirror some of `images` [b, 3, S, S] left to right, in place."""
    chosen = torch.from_numpy(draws.chosen(Lane.FLIP, options.flip))
    images[chosen] = images[chosen].flip(-1)


def shift(images: Tensor, draws: Draws, options: Augmentation) -> Tensor:
    """Move each image by whole pixels, repeating the border: uint8 [b, S, S, 3], same."""
    side = images.shape[1]
    reach = min(side, round(options.shift_pixels(side)))
    num_places = 2 * reach + 1
    columns = (draws.uniform(Lane.SHIFT_X) * num_places).astype(np.int64)
    rows = (draws.uniform(Lane.SHIFT_Y) * num_places).astype(np.int64)
    padded = np.pad(images.numpy(), ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side, 3), axis=(1, 2, 3))
    return torch.from_numpy(windows[np.arange(len(images)), rows, columns, 0])  # [b, S, S, 3]


def warp(images: Tensor, draws: Draws, options: Augmentation) -> Tensor:
    """Mirror, turn, scale and shift float [b, 3, S, S] about the image's center; same shape."""
    grid = _sampling_grid(_affine_maps(images.shape[-1], draws, options), images.shape[-1])
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


def _sampling_grid(maps: Float32Array, side: int) -> Tensor:
    """float32 [b, S, S, 2], x then y. By broadcasting: affine_grid takes 10 times as long."""
    centers = torch.arange(side, dtype=torch.float32).mul_(2).add_(1).div_(side).sub_(1)  # [S]
    place = torch.from_numpy(maps)[:, None, None]  # [b, 1, 1, 2, 3]
    along_x = place[..., 0] * centers[:, None]  # [b, 1, S, 2]
    along_y = place[..., 1] * centers[:, None, None] + place[..., 2]  # [b, S, 1, 2]
    return along_x + along_y

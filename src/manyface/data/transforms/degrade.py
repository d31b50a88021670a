"""What bad cameras and obstacles do: low resolution, blur, a covered part.

Only some samples are hit; they are changed in place.

Images here are float32 [b, 3, S, S] in [-1, 1].
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from manyface.data.transforms.draws import Draws, Lane
from manyface.data.transforms.options import Augmentation

_LOW_RESOLUTION_SIDES = (0.2, 0.9)  # of the side
_BLUR_SIGMAS = (0.008, 0.025)  # of the side
_ERASED_AREAS = (0.02, 0.2)  # of the image
_ERASED_ASPECT = 2.0  # width to height, or the reverse, at most


def lower_resolution(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Shrink (antialiased) and enlarge again, each image to a side of its own."""
    side = images.shape[-1]
    low, high = (fraction * side for fraction in _LOW_RESOLUTION_SIDES)
    small_sides = draws.uniform(Lane.LOW_RESOLUTION_SIDE, low, high)
    for i in draws.chosen(Lane.LOW_RESOLUTION, options.low_resolution).tolist():
        small_side = max(1, round(float(small_sides[i])))
        small = interpolate(
            images[i : i + 1], (small_side, small_side), mode="bilinear", antialias=True
        )
        images[i : i + 1] = interpolate(small, (side, side), mode="bilinear", align_corners=False)


def blur(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Gaussian blur, rows then columns, the border repeated."""
    side = images.shape[-1]
    low, high = (fraction * side for fraction in _BLUR_SIGMAS)
    sigmas = draws.uniform(Lane.BLUR_SIGMA, low, high)
    reach = min(side - 1, math.ceil(3 * high))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    for i in draws.chosen(Lane.BLUR, options.blur).tolist():
        weights = torch.exp(offsets.square() / (-2 * float(sigmas[i]) ** 2))
        weights = weights / weights.sum()
        planes = pad(images[i : i + 1], (reach,) * 4, mode="replicate").transpose(0, 1)
        planes = conv2d(planes, weights.view(1, 1, 1, -1))  # [3, 1, S + 2 reach, S]
        images[i : i + 1] = conv2d(planes, weights.view(1, 1, -1, 1)).transpose(0, 1)


def erase(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Fill a rectangle with one colour."""
    side = images.shape[-1]
    area = draws.uniform(Lane.ERASE_AREA, *_ERASED_AREAS)
    stretch = math.log(_ERASED_ASPECT)
    root_aspect = np.exp(draws.uniform(Lane.ERASE_ASPECT, -stretch, stretch) / 2)
    heights = np.clip(np.rint(side * np.sqrt(area) / root_aspect), 1, side).astype(np.int64)
    widths = np.clip(np.rint(side * np.sqrt(area) * root_aspect), 1, side).astype(np.int64)
    tops = (draws.uniform(Lane.ERASE_Y) * (side - heights + 1)).astype(np.int64)
    lefts = (draws.uniform(Lane.ERASE_X) * (side - widths + 1)).astype(np.int64)
    colour_lanes = (Lane.ERASE_RED, Lane.ERASE_GREEN, Lane.ERASE_BLUE)
    colours = np.stack([draws.uniform(lane, -1, 1) for lane in colour_lanes], axis=-1)  # [b, 3]
    pixels = images.numpy()
    for i in draws.chosen(Lane.ERASE, options.erase).tolist():
        rows = slice(tops[i], tops[i] + heights[i])
        columns = slice(lefts[i], lefts[i] + widths[i])
        pixels[i, :, rows, columns] = colours[i, :, None, None]

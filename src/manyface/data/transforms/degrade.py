"""What bad cameras and obstacles do: low resolution, blur, a covered part.

Only some samples are hit; they are changed in place.

Images here are float32 [b, 3, S, S] in [-1, 1].
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

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
        _filter(images[i], _resolution_filter(side, max(1, round(float(small_sides[i])))))


def blur(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Gaussian blur, the border repeated."""
    side = images.shape[-1]
    low, high = (fraction * side for fraction in _BLUR_SIGMAS)
    sigmas = draws.uniform(Lane.BLUR_SIGMA, low, high)
    for i in draws.chosen(Lane.BLUR, options.blur).tolist():
        _filter(images[i], _gaussian_filter(side, sigma=float(sigmas[i])))


def _filter(image: Tensor, weights: Tensor) -> None:
    """Apply `weights` [S, S] to rows and columns of `image` [3, S, S], in place.

    As two small matrix products: 0.4 of the time of two resizes and 0.6 of that of two
    convolutions, whose set-up for each new size or kernel costs more than their arithmetic.
    """
    image.copy_(weights @ image @ weights.T)


@lru_cache(maxsize=256)
def _resolution_filter(side: int, small_side: int) -> Tensor:
    """Going to `small_side` pixels and back, as what it makes of each unit vector: [S, S]."""
    units = torch.eye(side)[None, None]  # columns are resized, each its own signal
    small = interpolate(units, (small_side, side), mode="bilinear", antialias=True)
    return interpolate(small, (side, side), mode="bilinear", align_corners=False)[0, 0]


def _gaussian_filter(side: int, *, sigma: float) -> Tensor:
    """Normalised Gaussian weights [S, S]; what would fall outside is given to the border pixel."""
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, side + reach, dtype=torch.float32)
    distances = places - torch.arange(side, dtype=torch.float32)[:, None]  # [S, S + 2 reach]
    weights = torch.exp(distances.square() / (-2 * sigma**2))
    # Cut the tails: numbers down to 1e-40 would slow the products tenfold.
    weights.masked_fill_(distances.abs() > reach, 0)
    weights /= weights.sum(dim=1, keepdim=True)
    inside = weights[:, reach : reach + side].clone()
    inside[:, 0] += weights[:, :reach].sum(dim=1)
    inside[:, -1] += weights[:, reach + side :].sum(dim=1)
    return inside


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

"""What bad cameras and obstacles do: low resolution, blur, a covered part.

Only some samples are hit; they are changed in place.

Images here are float32 [b, 3, S, S] in [-1, 1].
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from manyface.data.transforms.draws import Draws, Float32Array, Lane
from manyface.data.transforms.options import Augmentation

_LOW_RESOLUTION_SIDES = (0.2, 0.9)  # of the side
BLUR_SIGMAS = (0.008, 0.025)  # of the side
_ERASED_AREAS = (0.02, 0.2)  # of the image
_ERASED_ASPECT = 2.0  # width to height, or the reverse, at most


def lower_resolution(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Shrink (antialiased) and enlarge again, each image to a side of its own."""
    small_sides = low_resolution_sides(images.shape[-1], draws)
    for i in draws.chosen(Lane.LOW_RESOLUTION, options.low_resolution).tolist():
        _filter(images[i], resolution_filter(images.shape[-1], small_sides[i]))


def low_resolution_sides(side: int, draws: Draws) -> list[int]:
    """The side that each image is shrunk to where it is."""
    low, high = (fraction * side for fraction in _LOW_RESOLUTION_SIDES)
    drawn = draws.uniform(Lane.LOW_RESOLUTION_SIDE, low, high)
    return [max(1, round(small)) for small in drawn.tolist()]


def blur(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """Gaussian blur, the border repeated."""
    sigmas = blur_sigmas(images.shape[-1], draws)
    for i in draws.chosen(Lane.BLUR, options.blur).tolist():
        _filter(images[i], gaussian_filter(images.shape[-1], sigma=float(sigmas[i])))


def blur_sigmas(side: int, draws: Draws) -> Float32Array:
    """The width of each image's blur where it is, in pixels, float32 [b]."""
    low, high = (fraction * side for fraction in BLUR_SIGMAS)
    return draws.uniform(Lane.BLUR_SIGMA, low, high)


def _filter(image: Tensor, weights: Tensor) -> None:
    """Apply `weights` [S, S] to rows and columns of `image` [3, S, S], in place.

    As two small matrix products: 0.4 of the time of two resizes and 0.6 of that of two
    convolutions, whose set-up for each new size or kernel costs more than their arithmetic.
    """
    image.copy_(weights @ image @ weights.T)


@lru_cache(maxsize=256)
def resolution_filter(side: int, small_side: int) -> Tensor:
    """Going to `small_side` pixels and back, as what it makes of each unit vector: [S, S]."""
    units = torch.eye(side)[None, None]  # columns are resized, each its own signal
    small = interpolate(units, (small_side, side), mode="bilinear", antialias=True)
    return interpolate(small, (side, side), mode="bilinear", align_corners=False)[0, 0]


def gaussian_filter(side: int, *, sigma: float) -> Tensor:
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
    places, colours = rectangles(images.shape[-1], draws)
    pixels = images.numpy()
    for i in draws.chosen(Lane.ERASE, options.erase).tolist():
        top, bottom, left, right = places[i]
        pixels[i, :, top:bottom, left:right] = colours[i, :, None, None]


def rectangles(side: int, draws: Draws) -> tuple[npt.NDArray[np.int64], Float32Array]:
    """What is filled where it is: int64 [b, 4] (top, bottom, left, right) and float32 [b, 3]."""
    area = draws.uniform(Lane.ERASE_AREA, *_ERASED_AREAS)
    stretch = math.log(_ERASED_ASPECT)
    root_aspect = np.exp(draws.uniform(Lane.ERASE_ASPECT, -stretch, stretch) / 2)
    heights = np.clip(np.rint(side * np.sqrt(area) / root_aspect), 1, side).astype(np.int64)
    widths = np.clip(np.rint(side * np.sqrt(area) * root_aspect), 1, side).astype(np.int64)
    tops = (draws.uniform(Lane.ERASE_Y) * (side - heights + 1)).astype(np.int64)
    lefts = (draws.uniform(Lane.ERASE_X) * (side - widths + 1)).astype(np.int64)
    colour_lanes = (Lane.ERASE_RED, Lane.ERASE_GREEN, Lane.ERASE_BLUE)
    colours = np.stack([draws.uniform(lane, -1, 1) for lane in colour_lanes], axis=-1)
    return np.stack([tops, tops + heights, lefts, lefts + widths], axis=-1), colours

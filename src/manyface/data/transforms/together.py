"""Augmentation as a GPU likes it: each change by a few operations on the whole batch.

The same draws and the same formulas as on the CPU, where images are changed one by one. What copies
values gives the same bits; filters and resampling differ by rounding, and by more where the user
allows matrix products in TF32.
"""

import math

import torch
from torch import Tensor

from manyface.data.transforms.colour import adjust_colour
from manyface.data.transforms.degrade import (
    BLUR_SIGMAS,
    blur_sigmas,
    low_resolution_sides,
    rectangles,
    resolution_filter,
)
from manyface.data.transforms.draws import Draws, Lane
from manyface.data.transforms.geometry import warp, whole_steps
from manyface.data.transforms.options import Augmentation


def augment_together(images: Tensor, draws: Draws, options: Augmentation) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S] in [-1, 1], contiguous, on the same device."""
    if options.rotate_degrees > 0 or options.scale > 0:
        result = warp(_as_float(images), draws, options)
    elif options.shift > 0 or options.flip > 0:
        result = _as_float(_placed(images, draws, options))
    else:
        result = _as_float(images)
    if options.changes_colour:
        adjust_colour(result, draws, options)
    else:
        result.sub_(127.5).div_(127.5)
    if options.low_resolution > 0:
        _lower_resolution(result, draws, options)
    if options.blur > 0:
        _blur(result, draws, options)
    return _erased(result, draws, options) if options.erase > 0 else result


def _as_float(images: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S], contiguous."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _placed(images: Tensor, draws: Draws, options: Augmentation) -> Tensor:
    """Shifted by whole pixels, mirrored; uint8 [B, S, S, 3]: each pixel is looked up."""
    side = images.shape[1]
    reach, columns, rows, mirrored = whole_steps(side, draws, options)
    ahead = torch.arange(side, device=images.device)
    across = torch.where(draws.moved(mirrored)[:, None], side - 1 - ahead, ahead)  # [B, S]
    x = (draws.moved(columns)[:, None] + across - reach).clamp_(0, side - 1)
    y = (draws.moved(rows)[:, None] + ahead - reach).clamp_(0, side - 1)
    image = torch.arange(len(images), device=images.device)
    return images[image[:, None, None], y[:, :, None], x[:, None, :]]


def _lower_resolution(images: Tensor, draws: Draws, options: Augmentation) -> None:
    side = images.shape[-1]
    chosen = draws.chosen(Lane.LOW_RESOLUTION, options.low_resolution)
    if len(chosen):
        sides = low_resolution_sides(side, draws)
        filters = torch.stack([resolution_filter(side, sides[i]) for i in chosen.tolist()])
        _filter(images, draws.moved(chosen), filters.to(images.device, non_blocking=True))


def _blur(images: Tensor, draws: Draws, options: Augmentation) -> None:
    side = images.shape[-1]
    chosen = draws.chosen(Lane.BLUR, options.blur)
    if len(chosen):
        sigmas = draws.moved(blur_sigmas(side, draws)[chosen])
        _filter(images, draws.moved(chosen), _gaussian_filters(side, sigmas))


def _gaussian_filters(side: int, sigmas: Tensor) -> Tensor:
    """`degrade.gaussian_filter` of each of `sigmas` [k]: [k, S, S]."""
    farthest = math.ceil(3 * BLUR_SIGMAS[1] * side)  # whatever else is in the batch
    sigmas = sigmas[:, None, None]
    places = torch.arange(-farthest, side + farthest, device=sigmas.device, dtype=torch.float32)
    distances = places - places[farthest : farthest + side, None]  # [S, S + 2 farthest]
    weights = torch.exp(distances.square() / (-2 * sigmas.square()))
    weights = weights.masked_fill_(distances.abs() > torch.ceil(3 * sigmas), 0)
    weights /= weights.sum(dim=2, keepdim=True)
    inside = weights[:, :, farthest : farthest + side].clone()
    inside[:, :, 0] += weights[:, :, :farthest].sum(dim=2)
    inside[:, :, -1] += weights[:, :, farthest + side :].sum(dim=2)
    return inside


def _filter(images: Tensor, chosen: Tensor, weights: Tensor) -> None:
    """Apply `weights` [k, S, S] to rows and columns of the images `chosen` [k], in place."""
    weights = weights[:, None]
    images[chosen] = weights @ images[chosen] @ weights.transpose(-1, -2)


def _erased(images: Tensor, draws: Draws, options: Augmentation) -> Tensor:
    side = images.shape[-1]
    places, colours = rectangles(side, draws)
    places[draws.uniform(Lane.ERASE) >= options.erase] = 0  # empty
    top, bottom, left, right = draws.moved(places)[..., None].unbind(1)  # [B, 1] each
    along = torch.arange(side, device=images.device)
    rows, columns = (along >= top) & (along < bottom), (along >= left) & (along < right)  # [B, S]
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]  # [B, 1, S, S]
    return torch.where(inside, draws.moved(colours)[:, :, None, None], images)

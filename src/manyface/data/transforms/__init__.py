"""Augmentation of whole batches, each sample's draw a pure function of (seed, position).

    uint8 [B, S, S, 3] -> geometry, colour, low resolution, blur, erasing -> float32 [B, 3, S, S]

Draws come from hash_uniform: batch-mates, batch size, worker and order of work cannot change them,
and nothing has to be saved for a resume. A batch is worked off in slices that fit a core's cache,
which is worth a factor of two. An option at 0 is skipped, not multiplied by one. Images that are
on a GPU are augmented there (together.py), by the same draws.

On the CPU the colours of a pixel stay together in memory (torch.channels_last), as they were
decoded and as convolutions want them: taking them apart costs more than all of the mirror.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.data.transforms.colour import adjust_colour
from manyface.data.transforms.degrade import blur, erase, lower_resolution
from manyface.data.transforms.draws import Draws
from manyface.data.transforms.geometry import place, warp
from manyface.data.transforms.options import Augmentation
from manyface.data.transforms.together import augment_together

__all__ = ["Augmentation", "augment", "normalise"]

_SLICE_BYTES = 2 << 20  # of float pixels: about a second-level cache; 1 MiB costs 15 % more


def augment(
    images: Tensor,
    *,
    positions: npt.NDArray[np.int64],
    seed: int,
    options: Augmentation,
    out: Tensor | None = None,
) -> Tensor:
    """Augment and normalise.

    Args:
        images: uint8 [B, S, S, 3], RGB.
        positions: int [B], of the samples in the endless row of training.
        seed: of the augmentation stream.
        options: what to draw.
        out: on the CPU, float32 [B, 3, S, S], channels-last, to be filled and returned.

    Returns: float32 [B, 3, S, S] in [-1, 1], on the device of `images`; there contiguous and, but
        for rounding, what it is on the CPU, where it is channels-last.
    """
    size, side = images.shape[0], images.shape[1]
    if len(positions) != size:
        raise ValueError(f"expected one position per image, got {len(positions)} for {size}")
    draws = Draws(seed, np.asarray(positions), device=images.device)
    if images.device.type != "cpu":
        return augment_together(images, draws, options)
    result = torch.empty(size, side, side, 3).permute(0, 3, 1, 2) if out is None else out
    step = max(1, _SLICE_BYTES // (side * side * 12))
    for start in range(0, size, step):
        here = slice(start, start + step)
        _augment_slice(images[here], result[here], draws.part(here), options)
    return result


def normalise(images: Tensor) -> Tensor:
    """(x - 127.5) / 127.5: uint8 [B, S, S, 3] -> float32 [B, 3, S, S], channels-last."""
    pixels = images.to(torch.float32, copy=True)  # floats too are left as they were
    return pixels.sub_(127.5).div_(127.5).permute(0, 3, 1, 2)


def _augment_slice(images: Tensor, out: Tensor, draws: Draws, options: Augmentation) -> None:
    """uint8 [b, S, S, 3] -> `out` float32 [b, 3, S, S]."""
    if options.rotate_degrees > 0 or options.scale > 0:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        out.copy_(warp(pixels, draws, options))
    elif options.shift > 0 or options.flip > 0:
        place(images, out, draws, options)
    else:
        out.copy_(images.permute(0, 3, 1, 2))
    if options.changes_colour:
        adjust_colour(out, draws, options)
    else:
        out.sub_(127.5).div_(127.5)
    if options.low_resolution > 0:
        lower_resolution(out, draws, options)
    if options.blur > 0:
        blur(out, draws, options)
    if options.erase > 0:
        erase(out, draws, options)

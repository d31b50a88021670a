"""Brightness, contrast, saturation and grey as one affine map of each pixel.

With x a pixel in [0, 255], g(x) its grey and m the mean grey of the image, the usual chain

    brightness  y = b x     contrast  y = c x + (1 - c) m     saturation  y = s x + (1 - s) g(x)

collapses, since g is linear and leaves greys alone, into

    y = (c b s) x + (c b (1 - s)) g(x) + (1 - c) b m

so the image is passed over once, whatever is on. The step to [-1, 1] is part of the same map, and
values are cut off once, at the end.
"""

import torch
from torch import Tensor

from manyface.data.transforms.draws import Draws, Lane
from manyface.data.transforms.options import Augmentation

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG and Pillow
_HALF_RANGE = 127.5


def adjust_colour(images: Tensor, draws: Draws, options: Augmentation) -> None:
    """`images` float32 [b, 3, S, S] from [0, 255] to changed colours in [-1, 1], in place."""
    brightness = draws.column(Lane.BRIGHTNESS, 1 - options.brightness, 1 + options.brightness)
    contrast = draws.column(Lane.CONTRAST, 1 - options.contrast, 1 + options.contrast)
    drawn = draws.uniform(Lane.SATURATION, 1 - options.saturation, 1 + options.saturation)
    drawn[draws.chosen(Lane.GREY, options.grey)] = 0
    saturation = draws.as_column(drawn)  # [b, 1, 1, 1]
    brightness /= _HALF_RANGE
    gain = brightness * contrast
    offset = torch.full_like(gain, -1)  # [b, 1, 1, 1]
    if options.contrast > 0:
        offset += (1 - contrast) * brightness * _grey(images.mean(dim=(2, 3), keepdim=True))
    if options.saturation > 0 or options.grey > 0:
        offset = _grey(images).mul_(gain * (1 - saturation)).add_(offset)  # [b, 1, S, S]
        gain *= saturation
    images.mul_(gain).add_(offset).clamp_(-1, 1)


def _grey(images: Tensor) -> Tensor:
    """[b, 3, h, w] -> [b, 1, h, w]."""
    red, green, blue = _GREY_WEIGHTS
    grey = images[:, 0:1] * red
    return grey.add_(images[:, 1:2], alpha=green).add_(images[:, 2:3], alpha=blue)

"""Painting on a batch of images at once: windows, soft shapes, layers.

Coordinates are face units: the origin lies between the eyes of the ArcFace template, x to the
right, y down, and 1 is the distance between its eyes (35.24 of 112 pixels). A shape is a function
that is positive inside; its edge is one pixel wide. Only +, -, *, /, sqrt, min and max touch
pixels: these are correctly rounded everywhere, so an image has the same bits on every machine and
in every batch, which no exp or sin would promise.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

TEMPLATE_SIZE = 112.0
EYE_DISTANCE = 35.24  # pixels of the template, as everything here that speaks of the template
EYE_CENTER = (55.91, 51.60)
# ArcFace's five landmarks in face units: eyes, nose tip, corners of the mouth (symmetrised).
TEMPLATE_POINTS = ((-0.5, 0.0), (0.5, 0.0), (0.0, 0.571), (-0.414, 1.154), (0.414, 1.154))


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, the same for the whole batch, with the face coordinates in it."""

    rows: slice
    columns: slice
    x: Tensor  # [1, 1, W]
    y: Tensor  # [1, H, 1]
    sharpness: float  # pixels per face unit


@cache
def window(size: int, left: float, right: float, top: float, bottom: float) -> Window:
    """The pixels of a `size` x `size` image whose centers lie in the rectangle (face units)."""
    scale = TEMPLATE_SIZE / size
    pixels = (np.arange(size) + 0.5) * scale - 0.5
    x = (pixels - EYE_CENTER[0]) / EYE_DISTANCE
    y = (pixels - EYE_CENTER[1]) / EYE_DISTANCE
    columns = slice(*np.searchsorted(x, (left, right)).tolist())
    rows = slice(*np.searchsorted(y, (top, bottom)).tolist())
    return Window(
        rows,
        columns,
        torch.from_numpy(x[columns].astype(np.float32))[None, None, :],
        torch.from_numpy(y[rows].astype(np.float32))[None, :, None],
        EYE_DISTANCE / scale,
    )


@dataclass
class Canvas:
    """The batch while it is painted: what colour the surface has and how much light it gets."""

    albedo: Tensor  # [3, B, S, S]
    shade: Tensor  # [B, S, S]

    @property
    def size(self) -> int:
        return self.shade.shape[-1]

    def full(self) -> Window:
        return self.window(-9.0, 9.0, -9.0, 9.0)

    def window(self, left: float, right: float, top: float, bottom: float) -> Window:
        return window(self.size, left, right, top, bottom)

    def paint(self, area: Window, cover: Tensor, color: Tensor) -> None:
        """Lay `color` `[3, B, 1, 1]` over the albedo, opaque where `cover` `[B, H, W]` is 1."""
        part = self.albedo[:, :, area.rows, area.columns]
        part += (color - part).mul_(cover)

    def light(self, area: Window, amount: Tensor) -> None:
        """Add to the light that falls on the window."""
        self.shade[:, area.rows, area.columns] += amount

    def relight(self, area: Window, cover: Tensor, light: Tensor) -> None:
        """Replace the light where `cover` is 1."""
        part = self.shade[:, area.rows, area.columns]
        part += (light - part).mul_(cover)

    def crop(self, area: Window) -> tuple["Canvas", Window]:
        """A contiguous copy of a window, and the window in it: faster where many layers follow."""
        part = Canvas(
            self.albedo[:, :, area.rows, area.columns].contiguous(),
            self.shade[:, area.rows, area.columns].contiguous(),
        )
        return part, replace(area, rows=slice(None), columns=slice(None))

    def paste(self, area: Window, part: "Canvas") -> None:
        """Write back what `crop` gave out."""
        self.albedo[:, :, area.rows, area.columns] = part.albedo
        self.shade[:, area.rows, area.columns] = part.shade

    def take(self, chosen: Tensor) -> "Canvas":
        """A copy of some images, for layers that few images have."""
        return Canvas(self.albedo[:, chosen], self.shade[chosen])

    def put(self, chosen: Tensor, part: "Canvas") -> None:
        """Write back what `take` gave out."""
        self.albedo[:, chosen] = part.albedo
        self.shade[chosen] = part.shade


def cover(inside: Tensor, sharpness: float | Tensor) -> Tensor:
    """How much of a pixel a shape covers, from its (approximate) signed distance in face units.

    Overwrites `inside`.
    """
    return inside.mul_(sharpness).add_(0.5).clamp_(0.0, 1.0)


def color(red: float, green: float, blue: float) -> Tensor:
    """The same colour for the whole batch, `[3, 1, 1, 1]`."""
    return torch.tensor((red, green, blue))[:, None, None, None]


def mix(first: Tensor, second: Tensor, amount: Tensor | float) -> Tensor:
    """The colour `amount` of the way from the first to the second, `[3, B, 1, 1]`."""
    return first + (second - first) * amount


def clamp(values: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return values.clamp(low, high)


def at_least(values: Tensor, bound: float) -> Tensor:
    return values.clamp(min=bound)


def at_most(values: Tensor, bound: float) -> Tensor:
    return values.clamp(max=bound)

"""From painted planes to the picture: light on albedo, exposure, softness, sensor noise, 8 bits."""

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import Canvas, at_least, clamp
from manyface.data.synthetic.scene import Scene

_BLUR_PASSES_PER_PIXEL = 1 / 48  # so that softness is about the same share of the face at any size


def expose(canvas: Canvas, scene: Scene) -> Tensor:
    """Colours as the sensor sees them, float32 `[3, B, S, S]` about [0, 255]; reuses the albedo."""
    pictures = scene.pictures
    level = pictures.exposure * pictures.contrast * 255.0
    shade = at_least(canvas.shade, 0.05)
    lift = (1.0 - pictures.contrast) * 127.5
    gains = torch.stack((pictures.warmth, pictures.green, -pictures.warmth)) + 1.0
    return canvas.albedo.mul_(shade).mul_(gains * level).add_(lift)


def soften(planes: Tensor, scene: Scene) -> None:
    """Blur by repeated (b/4, 1 - b/2, b/4) along rows and columns, in place."""
    size = planes.shape[-1]
    strength = clamp(scene.pictures.blur)
    side = strength * 0.25
    center = 1.0 - side - side
    for _ in range(max(1, round(size * _BLUR_PASSES_PER_PIXEL))):
        across = (planes[..., :-2] + planes[..., 2:]).mul_(side)
        planes[..., 1:-1].mul_(center).add_(across)
        along = (planes[..., :-2, :] + planes[..., 2:, :]).mul_(side)
        planes[..., 1:-1, :].mul_(center).add_(along)


def develop(planes: Tensor, noise: Tensor, scene: Scene) -> Tensor:
    """Add sensor noise `[3, B, S, S]` (unit variance, reused) and round: uint8 `[B, S, S, 3]`."""
    amount = at_least(scene.pictures.noise, 0.0) * 255.0
    planes.add_(noise.mul_(amount)).add_(0.5).clamp_(0.0, 255.0)  # truncated below: so rounded
    return planes.to(torch.uint8).permute(1, 2, 3, 0).contiguous()

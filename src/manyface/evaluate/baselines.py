"""The floor to beat: whitened pixels, a projection that knows nothing of identities.

Grey images are averaged down to at most `size` x `size`, projected on their first principal
components and scaled to unit variance ("eigenfaces", Turk and Pentland 1991, whitened), compared by
cosine, with the mirror image added as for a network (on LFW's pairsDevTest 0.75; without it 0.71).
A network that does no better has learned no faces.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.data.source import ImageSource

# ITU-R BT.601 luma, as JPEG uses it.
_LUMA = (0.299, 0.587, 0.114)
_BATCH = 256


@dataclass(frozen=True)
class WhitenedPixels:
    """A fitted baseline; it is itself an `EmbedFunction`."""

    mean: Tensor  # float32 [size * size]
    projection: Tensor  # float32 [size * size, components]
    size: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] -> float32 [B, components] of unit length."""
        grey = grey_pixels(images, size=self.size) - self.mean  # [B, size * size]
        mirrored = grey_pixels(images.flip(2), size=self.size) - self.mean
        return functional.normalize((grey + mirrored) @ self.projection, dim=1)


def fit_whitened_pixels(
    source: ImageSource,
    *,
    components: int = 200,
    max_images: int = 4000,
    size: int = 32,
    seed: int = 0,
) -> WhitenedPixels:
    """Fit on up to `max_images` images of `source` (training people), drawn without replacement."""
    components = min(components, len(source) - 1, size * size)
    if components < 1:
        raise DataError(f"whitened pixels need at least 2 training images, {source.name} has fewer")
    # choice without shuffle draws a set in O(max_images) memory, whatever the source's length.
    chosen = numpy_generator(seed, "whitened-pixels").choice(
        len(source), size=min(max_images, len(source)), replace=False, shuffle=False
    )
    chosen = np.sort(chosen).astype(np.int64)
    batches = [chosen[i : i + _BATCH] for i in range(0, len(chosen), _BATCH)]
    pixels = torch.cat([grey_pixels(source.load(batch), size=size) for batch in batches])  # [N, d]
    mean = pixels.mean(dim=0)
    centred = (pixels - mean).double()
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))  # rising order
    variances, axes = variances[-components:], axes[:, -components:]  # [k], [d, k]
    # Directions without variance (equal images) are left as they are, not blown up.
    scale = variances.clamp_min(1e-8 * variances[-1].clamp_min(1e-12)).rsqrt()
    return WhitenedPixels(mean=mean, projection=(axes * scale).float(), size=size)


def grey_pixels(images: Tensor, *, size: int) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, size * size] in [0, 1], averaged over areas."""
    weights = torch.tensor(_LUMA, device=images.device) / 255.0
    grey = (images.float() @ weights).unsqueeze(1)  # [B, 1, S, S]
    if grey.shape[-1] > size:
        grey = functional.adaptive_avg_pool2d(grey, size)
    else:
        grey = functional.interpolate(grey, size=(size, size), mode="nearest")
    return grey.flatten(1)  # [B, size * size]

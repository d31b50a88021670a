"""What is done to an aligned face before a net sees it: a part of the model, as its weights are.

    uint8 [B, S, S, 3] RGB -> the net's order of channels -> (x - mean) / std -> [B, 3, S, S]

A net that is fed with other colours or another scale still gives embeddings, only worse ones, so
every file that holds a model says how it is to be fed.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from manyface.base.errors import DataError

Colour = Literal["RGB", "BGR"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
TEMPLATES = ("arcface",)
_HALF = (127.5, 127.5, 127.5)


@dataclass(frozen=True)
class Preprocessing:
    """How images are fed to a net.

    Attributes:
        image_size: S, pixels a side.
        colour: order of the channels that the net takes; images are RGB everywhere else.
        mean, std: of each channel, in the net's order, in grey levels of 0 to 255.
        template: where the landmarks of an aligned face lie: "arcface", the five points of
            `manyface.data.align.template`.
        flip: the embedding of the mirror image is added.
    """

    image_size: int = 112
    colour: Colour = "RGB"
    mean: tuple[float, float, float] = _HALF
    std: tuple[float, float, float] = _HALF
    template: str = "arcface"
    flip: bool = True

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise DataError(f"preprocessing of a model: {problem}")

    def _problem(self) -> str:
        if not 1 <= self.image_size <= 4096:
            return f"image_size must be 1 to 4096 pixels, got {self.image_size}"
        if self.colour not in COLOURS:
            return f"colour must be one of {', '.join(COLOURS)}, got {self.colour!r}"
        if self.template not in TEMPLATES:
            return f"template must be one of {', '.join(TEMPLATES)}, got {self.template!r}"
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            return f"mean must be finite and std positive, got {self.mean} and {self.std}"
        return ""

    def apply(self, images: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] RGB -> float32 [B, 3, S, S], on the same device."""
        if images.ndim != 4 or images.shape[1:] != (self.image_size, self.image_size, 3):
            raise DataError(
                f"this model takes images [B, {self.image_size}, {self.image_size}, 3], "
                f"got {list(images.shape)}"
            )
        if images.dtype != torch.uint8:
            raise DataError(f"this model takes images in uint8 (0 to 255), got {images.dtype}")
        ordered = images.flip(-1) if self.colour == "BGR" else images
        pixels = ordered.permute(0, 3, 1, 2).to(
            torch.float32, memory_format=torch.contiguous_format
        )
        return pixels.sub_(_column(self.mean, pixels)).div_(_column(self.std, pixels))

    def to_json(self) -> dict[str, Any]:
        """As JSON can say it; `from_json` gives an equal record."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Preprocessing":
        """Of what `to_json` gave; keys and types were checked (card.py)."""
        mean, std = (tuple(map(float, found[key])) for key in ("mean", "std"))
        return cls(**{**found, "mean": mean, "std": std})


def _column(values: tuple[float, float, float], like: Tensor) -> Tensor | float:
    """For [B, 3, S, S]; one number where all three are equal, which costs no second tensor."""
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, device=like.device).view(1, 3, 1, 1)

"""What augmentation draws."""

import dataclasses
from dataclasses import dataclass

from manyface.base.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes; 0 is exactly off. The default is the mirror alone.

    Attributes:
        flip: probability of the mirror image. shift: largest shift along each axis: pixels from 1
        on, below 1 a fraction of the side. Whole
            pixels, or any fraction of one together with rotation or scale. The border is repeated.
        rotate_degrees: largest turn either way, degrees.
        scale: largest change of size: 0.1 draws a factor between 1 / 1.1 and 1.1, even in its log.
        brightness: largest relative change of all values: 0.2 draws a factor in [0.8, 1.2].
        contrast: the same, of the distance from the image's mean grey.
        saturation: the same, of the distance from each pixel's grey.
        grey: probability of losing all colour.
        blur: probability of a Gaussian blur, sigma 0.8 to 2.5 % of the side.
        low_resolution: probability of being shrunk to 0.2 to 0.9 of the side and enlarged again.
        erase: probability that a rectangle of 2 to 20 % of the image is filled with one colour.
    """

    flip: float = 0.5
    shift: float = 0.0
    rotate_degrees: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    low_resolution: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_unbounded = field.name in ("shift", "rotate_degrees", "scale")
            limit = float("inf") if is_unbounded else 1.0
            if not 0 <= value <= limit or value == float("inf"):
                kind = "a number >= 0" if is_unbounded else "between 0 and 1"
                raise ConfigError(f"augmentation.{field.name} must be {kind}, got {value}")

    @property
    def changes_colour(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation, self.grey) > 0

    def shift_pixels(self, side: int) -> float:
        """Largest shift in pixels of an image of `side` pixels."""
        return self.shift if self.shift >= 1 else self.shift * side

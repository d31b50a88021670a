"""Arguments of margins and rules that cannot be meant."""

import math
from collections.abc import Sequence

from torch import Tensor

from manyface.base.errors import ConfigError


def check_not_negative(name: str, value: float) -> None:
    """A finite number of at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} must be a number of at least 0, got {value}")


def check_positive(name: str, value: float) -> None:
    """A finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be a number above 0, got {value}")


def check_radians(name: str, value: float) -> None:
    """An angle in [0, pi]."""
    check_not_negative(name, value)
    if value > math.pi:
        raise ConfigError(f"{name} is in radians, at most pi; {value} looks like degrees")


def check_weight(name: str, value: float) -> None:
    """The weight of a new value in an average, in (0, 1]."""
    if not 0.0 < value <= 1.0:
        raise ConfigError(f"{name} must be in (0, 1], got {value}")


def check_label_smoothing(value: float) -> None:
    """The share of a label that is spread over all classes, in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"label_smoothing must be in [0, 1), got {value}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """One of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def check_gradient(kind: str) -> None:
    """A `GradientKind`."""
    check_choice("margin gradient", kind, ("exact", "straight_through"))


def need_norms(margin: str, norms: Tensor | None) -> Tensor:
    """The lengths of the embeddings, which `margin` cannot do without."""
    if norms is None:
        raise ConfigError(
            f"{margin} needs the lengths of the embeddings [B], got None: "
            "call it as margin(cosine, norms), with embeddings that are not normalised"
        )
    return norms

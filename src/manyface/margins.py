r"""Margins: the target cosine becomes the target logit (before the scale).

Every margin of the field is one function psi of the target cosine c = cos(theta), applied to the
logit of a sample's own class and to nothing else:

    NormFace   psi(c) = c                                   (Wang et al. 2017, arXiv 1704.06369)
    CosFace    psi(c) = c - m                               (Wang et al. 2018, arXiv 1801.09414)
    ArcFace    psi(c) = cos(theta + m)                      (Deng et al. 2019, arXiv 1801.07698)
    combined   psi(c) = cos(m1 theta + m2) - m3             (arXiv 1801.07698, eq. 4)

A margin sees only the B target cosines, never the B x C matrix, so it costs nothing and runs in the
precision of its input.

**Past pi.** phi = m1 theta + m2 can pass pi, where cos(phi) rises again and would pull a bad sample
further away. We continue psi as SphereFace does (Liu et al. 2017, eq. 7): on [k pi, (k+1) pi],

    cos(phi)  becomes  (-1)^k cos(phi) - 2k,

which is continuous, has a continuous slope (0 at every k pi) and falls monotonically in theta.

**Gradient.** `exact`: the derivative of psi,
psi'(c) = m1 sin(phi) / sin(theta) (times (-1)^k). `straight_through`: psi' is taken as 1, which is
what insightface trains with (its arccos and cos run under no_grad); the value is the same, the
gradient is not the derivative of the value. At c = 0.6, m2 = 0.5 the exact slope is 1.24.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from manyface.base.errors import ConfigError

GradientKind = Literal["exact", "straight_through"]


@runtime_checkable
class Margin(Protocol):
    """Target cosines -> target logits before the scale, differentiable with the gradient it states.

    Elementwise: sample i's logit depends on sample i's cosine and length alone. Values must not
    exceed 1, since the softmax relies on logits bounded by the scale. Only the cosine is
    differentiated, so a margin has no parameters that learn.
    """

    @property
    def gradient(self) -> GradientKind:
        """Whether autograd through the margin is the true derivative of its value."""

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """Target logits [B] of target cosines [B]; `norms` [B] are lengths of the embeddings."""


@dataclass(frozen=True)
class NormFace:
    """psi(c) = c: cosine softmax without a margin."""

    gradient: GradientKind = "exact"

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        return cosine


@dataclass(frozen=True)
class CosFace:
    """psi(c) = c - m, m in units of cosine. Its slope is 1, so both gradients are the same."""

    m: float = 0.4
    gradient: GradientKind = "exact"

    def __post_init__(self) -> None:
        _check_not_negative("CosFace m", self.m)
        _check_gradient(self.gradient)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        return cosine - self.m


@dataclass(frozen=True)
class CombinedMargin:
    """psi(c) = cos(m1 theta + m2) - m3; m1 a factor, m2 in radians, m3 in units of cosine."""

    m1: float = 1.0
    m2: float = 0.0
    m3: float = 0.0
    gradient: GradientKind = "exact"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.m1) and self.m1 > 0):
            raise ConfigError(f"margin m1 must be a number above 0, got {self.m1}")
        _check_radians("margin m2", self.m2)
        _check_not_negative("margin m3", self.m3)
        _check_gradient(self.gradient)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        logit = angular_margin(cosine, factor=self.m1, radians=self.m2) - self.m3
        return logit if self.gradient == "exact" else straight_through(cosine, logit)


@dataclass(frozen=True)
class ArcFace:
    """psi(c) = cos(theta + m), m in radians."""

    m: float = 0.5
    gradient: GradientKind = "exact"

    def __post_init__(self) -> None:
        _check_radians("ArcFace m", self.m)
        _check_gradient(self.gradient)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        logit = angular_margin(cosine, factor=1.0, radians=self.m)
        return logit if self.gradient == "exact" else straight_through(cosine, logit)


def angular_margin(cosine: Tensor, *, factor: float, radians: float) -> Tensor:
    """cos(factor * theta + radians), continued monotonically past pi. [B] -> [B]."""
    if factor == 1.0 and radians == 0.0:
        return cosine  # cos(arccos(c)) would only lose digits
    # The slope has sin(theta) below the line. At c = 1 or -1 theta has no direction to move in and
    # the clamp makes the gradient 0. It acts within 4 eps of the ends: theta < 0.001 in float32.
    edge = 1.0 - 4.0 * torch.finfo(cosine.dtype).eps
    phi = factor * torch.acos(cosine.clamp(-edge, edge)) + radians  # [B]
    half_turns = torch.floor(phi.detach() / math.pi)
    sign = 1.0 - 2.0 * torch.remainder(half_turns, 2.0)
    return sign * torch.cos(phi) - 2.0 * half_turns


def straight_through(cosine: Tensor, logit: Tensor) -> Tensor:
    """The value of `logit` with the gradient of `cosine`: not the derivative of the value."""
    return cosine + (logit - cosine).detach()


def _check_not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} must be a number of at least 0, got {value}")


def _check_radians(name: str, value: float) -> None:
    _check_not_negative(name, value)
    if value > math.pi:
        raise ConfigError(f"{name} is in radians, at most pi; {value} looks like degrees")


def _check_gradient(kind: str) -> None:
    if kind not in ("exact", "straight_through"):
        raise ConfigError(f"margin gradient must be 'exact' or 'straight_through', got {kind!r}")

r"""Fixed margins: the target cosine becomes the target logit (before the scale).

Each is one function psi of the target cosine c = cos(theta), the same for all samples, applied to
the logit of a sample's own class and to nothing else:

    NormFace    psi(c) = c                                  (Wang et al. 2017, arXiv 1704.06369)
    CosFace     psi(c) = c - m                              (Wang et al. 2018, arXiv 1801.09414)
    ArcFace     psi(c) = cos(theta + m)                     (Deng et al. 2019, arXiv 1801.07698)
    combined    psi(c) = cos(m1 theta + m2) - m3            (arXiv 1801.07698, eq. 4)
    SphereFace  psi(c) = (l c + cos(m theta)) / (1 + l)     (Liu et al. 2017, arXiv 1704.08063)

A margin sees only the B target cosines, never the B x C matrix, so it costs nothing and runs in the
precision of its input. Past pi every cosine is continued as `angular` writes.

**Gradient.** `exact`: the derivative of psi. `straight_through`: psi' is taken as 1, which is what
insightface trains with (its arccos and cos run under no_grad); the value is the same, the gradient
is not the derivative of the value. At c = 0.6, m2 = 0.5 the exact slope is 1.24.
"""

from dataclasses import dataclass

from torch import Tensor

from manyface.margins.angular import angular_margin, straight_through
from manyface.margins.base import GradientKind
from manyface.margins.checks import (
    check_gradient,
    check_not_negative,
    check_positive,
    check_radians,
)


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
        check_not_negative("CosFace m", self.m)
        check_gradient(self.gradient)

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
        check_positive("margin m1", self.m1)
        check_radians("margin m2", self.m2)
        check_not_negative("margin m3", self.m3)
        check_gradient(self.gradient)

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
        check_radians("ArcFace m", self.m)
        check_gradient(self.gradient)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        logit = angular_margin(cosine, factor=1.0, radians=self.m)
        return logit if self.gradient == "exact" else straight_through(cosine, logit)


@dataclass(frozen=True)
class SphereFace:
    """psi(c) = (annealing * c + cos(m theta)) / (1 + annealing); m a factor.

    The margin of arXiv 1704.08063, eq. 7, blended with the plain cosine as its training does:
    `annealing` is its lambda, which `schedules.sphereface_annealing` lowers step by step. The paper
    multiplies by the length of the embedding; here all logits have the head's scale.
    """

    m: float = 4.0
    annealing: float = 0.0
    gradient: GradientKind = "exact"

    def __post_init__(self) -> None:
        check_positive("SphereFace m", self.m)
        check_not_negative("SphereFace annealing", self.annealing)
        check_gradient(self.gradient)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        folded = angular_margin(cosine, factor=self.m, radians=0.0)
        logit = (self.annealing * cosine + folded) / (1.0 + self.annealing)
        return logit if self.gradient == "exact" else straight_through(cosine, logit)

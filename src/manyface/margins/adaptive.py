r"""Margins that depend on the length of the embedding, which stands for the quality of an image.

    AdaFace  psi = cos(theta - m k) - m (1 + k)     k in [-1, 1] from the length among its batch
    MagFace  psi = cos(theta + m(a)), and a penalty lambda_g g(a)     a the length

Both need embeddings that are not normalised. Past pi both are continued as `angular` writes.
"""

from dataclasses import dataclass, field

from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.margins.angular import angular_margin
from manyface.margins.base import GradientKind
from manyface.margins.checks import (
    check_not_negative,
    check_positive,
    check_radians,
    check_weight,
    need_norms,
)
from manyface.margins.running import RunningAverages

# AdaFace's code: lengths outside count as these, and this keeps a spread of 0 from dividing.
_SHORTEST, _LONGEST, _LEAST_SPREAD = 0.001, 100.0, 0.001


def _adaface_start() -> RunningAverages:
    return RunningAverages(mean=20.0, std=100.0)


@dataclass(frozen=True)
class AdaFace:
    r"""Long embeddings (good images) get an additive margin, short ones an angular one.

    Kim, Jain and Liu 2022, arXiv 2204.00964, sec. 3, with the numbers of the authors' code. With
    |x| the length of the embedding, clipped to [0.001, 100], and mu, sigma the running averages of
    its mean and standard deviation over batches,

        k    = clip(h (|x| - mu) / (sigma + 0.001), -1, 1)
        psi  = cos(theta - m k) - (m + m k).

    k = -1 is ArcFace, 0 CosFace; at k = 1 the angle is even helped. |x| is not differentiated: k is
    a constant of the step, and psi' = sin(theta - m k) / sin(theta). Where theta < m k, psi is
    1 - (m + m k) with slope 0. The authors' code also clips theta - m k to at most pi - 0.001 and
    cosines to 0.999; we continue past pi instead, and clip no cosine.

    Args:
        m: margin, in radians and in units of cosine.
        h: concentration; k reaches -1 and 1 at 1 / h standard deviations.
        t_alpha: weight of a batch in the running averages.
        running: `mean` and `std` of the lengths.
    """

    m: float = 0.4
    h: float = 0.333
    t_alpha: float = 0.01
    gradient: GradientKind = field(default="exact", init=False)
    running: RunningAverages = field(default_factory=_adaface_start, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_radians("AdaFace m", self.m)
        check_positive("AdaFace h", self.h)
        check_weight("AdaFace t_alpha", self.t_alpha)

    def observe(self, cosine: Tensor, norms: Tensor) -> None:
        """Average in the lengths [B] of a batch; one sample has no standard deviation."""
        lengths = norms.detach().clamp(_SHORTEST, _LONGEST)
        if lengths.shape[0] > 0:
            self.running.update(self.t_alpha, mean=lengths.mean())
        if lengths.shape[0] > 1:
            self.running.update(self.t_alpha, std=lengths.std())

    def quality(self, norms: Tensor) -> Tensor:
        """k in [-1, 1] of each length, [B] -> [B]; without gradient."""
        lengths = norms.detach().clamp(_SHORTEST, _LONGEST)
        spread = self.running["std"] + _LEAST_SPREAD
        return (self.h * (lengths - self.running["mean"]) / spread).clamp(-1.0, 1.0)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B], [B] -> [B]."""
        k = self.quality(need_norms("AdaFace", norms))
        return angular_margin(cosine, factor=1.0, radians=-self.m * k) - (self.m + self.m * k)


@dataclass(frozen=True)
class MagFace:
    r"""An angular margin that grows with the length of the embedding, and a reward for length.

    Meng et al. 2021, arXiv 2103.06627, sec. 3. With a = |x| clipped to [l_a, u_a],

        psi(c, a)  = cos(theta + m(a)),   m(a) = l_m + (u_m - l_m) (a - l_a) / (u_a - l_a)
        penalty(a) = lambda_g g(a),       g(a) = 1/a + a / u_a^2,

    and a is differentiated in both (nothing flows where it is clipped):

        d psi / d a     = -sin(theta + m(a)) (u_m - l_m) / (u_a - l_a)
        d penalty / d a = lambda_g (1 / u_a^2 - 1 / a^2).

    lambda_g is 35 in the paper; the authors' code has 20 as its default, and leaves targets without
    a margin where cos(theta) <= 0. Here the margin holds at every angle.

    Args:
        l_a, u_a: shortest and longest length.
        l_m, u_m: margins of those, in radians.
        lambda_g: weight of the penalty.
    """

    l_a: float = 10.0
    u_a: float = 110.0
    l_m: float = 0.45
    u_m: float = 0.8
    lambda_g: float = 35.0
    gradient: GradientKind = field(default="exact", init=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.l_a < self.u_a < float("inf"):
            raise ConfigError(f"MagFace needs 0 < l_a < u_a, got {self.l_a} and {self.u_a}")
        check_radians("MagFace l_m", self.l_m)
        check_radians("MagFace u_m", self.u_m)
        if self.l_m > self.u_m:
            raise ConfigError(f"MagFace needs l_m <= u_m, got {self.l_m} and {self.u_m}")
        check_not_negative("MagFace lambda_g", self.lambda_g)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B], [B] -> [B]."""
        length = need_norms("MagFace", norms).clamp(self.l_a, self.u_a)
        slope = (self.u_m - self.l_m) / (self.u_a - self.l_a)  # radians per unit of length
        radians = self.l_m + slope * (length - self.l_a)
        return angular_margin(cosine, factor=1.0, radians=radians)

    def penalty(self, norms: Tensor) -> Tensor:
        """lambda_g g(a), [B] -> [B]."""
        length = norms.clamp(self.l_a, self.u_a)
        return self.lambda_g * (1.0 / length + length / self.u_a**2)

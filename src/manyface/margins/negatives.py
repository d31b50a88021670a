r"""Rules for the negatives: the cosine of a class that is not the sample's own becomes its logit.

With c = cos(theta_ij) and psi_i the target logit of sample i (margin included, scale not), a rule
is a function g(c; psi_i) of one sample and one class. A class with c > psi_i is *hard*: it scores
above the sample's own class.

    CurricularFace           g = c (t + c) if hard, else c            (arXiv 2004.00288)
    MVSoftmax  adaptive      g = (1 + t) c + t if hard, else c        (arXiv 1912.00833, 1812.11317)
               fixed         g = c + t if hard, else c                (arXiv 1912.00833)
    InterclassFilter zero    g = 0 if c > threshold, else c           (insightface)
                     remove  g = -inf if c > threshold, else c        (this project)

Which classes are hard, and t, are constants of the step: nothing flows through psi_i. So the slope
dg/dc is the derivative of the chosen branch, all there is, and g is not continuous where the branch
changes.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.margins.checks import check_choice, check_not_negative, check_weight
from manyface.margins.running import RunningAverages


@runtime_checkable
class NegativeRule(Protocol):
    """Cosines of negative classes -> their logits before the scale, a chunk of classes at a time.

    Elementwise in sample and class, so any chunk of classes can be given. What it returns at a
    sample's own class is not used. A logit of -inf takes the class out of the sample's softmax.
    """

    @property
    def bound(self) -> float:
        """The largest logit that it returns for cosines in [-1, 1]; at least 1. All are >= -1,
        or -inf."""

    def __call__(self, cosine: Tensor, target_logit: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, n] and their slopes d logit / d cosine [B, n], neither written into `cosine`.

        Args:
            cosine: [B, n], of n classes; autograd through the logit gives the slope too.
            target_logit: [B, 1], what the margin made of each target cosine; not differentiated.
        """


def _running_target() -> RunningAverages:
    return RunningAverages(t=0.0)


@dataclass(frozen=True)
class CurricularFace:
    r"""Hard classes weigh little early in training and more later: g = c (t + c), slope t + 2c.

    Huang et al. 2020, arXiv 2004.00288, to be used with `ArcFace` as the margin. t is the running
    average of the mean target cosine, 0 before the first batch; the batch itself counts already.
    As in the authors' code t and the choice of hard classes have no gradient. (There a class is
    hard if c > cos(theta + m), even where theta + m has passed pi; here if c > psi.)

    Args:
        t_alpha: weight of a batch in the running average.
        running: `t`.
    """

    t_alpha: float = 0.01
    running: RunningAverages = field(default_factory=_running_target, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_weight("CurricularFace t_alpha", self.t_alpha)

    @property
    def bound(self) -> float:
        """c (t + c) <= 1 + |t|, and t averages cosines."""
        return 2.0

    def observe(self, cosine: Tensor, norms: Tensor) -> None:
        """Average in the target cosines [n] of a batch."""
        if cosine.shape[0] > 0:
            self.running.update(self.t_alpha, t=cosine.mean())

    def __call__(self, cosine: Tensor, target_logit: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n], [B, 1] -> [B, n], [B, n]."""
        hard, t = cosine > target_logit.detach(), self.running["t"]
        slope = torch.where(hard, t + 2.0 * cosine, 1.0)
        return torch.where(hard, cosine * (t + cosine), cosine), slope.detach()


@dataclass(frozen=True)
class MVSoftmax:
    r"""Hard classes are raised: by t ("fixed") or by t (c + 1) ("adaptive").

    Wang et al. 2019, arXiv 1912.00833: e^{s c} of a hard class is multiplied by e^{s t} or by
    e^{s t (c + 1)}, so g = c + t with slope 1, or g = (1 + t) c + t with slope 1 + t. SV-Softmax
    (Wang et al. 2018, arXiv 1812.11317) is "adaptive", with its t written as our 1 + t; its first
    form, where hard means c > cos(theta_y), is that with `NormFace` as the margin.

    Args:
        t: how much, in units of cosine; 0 changes nothing.
        weighting: which of the two.
    """

    t: float = 0.2
    weighting: Literal["adaptive", "fixed"] = "adaptive"

    def __post_init__(self) -> None:
        check_not_negative("MVSoftmax t", self.t)
        check_choice("MVSoftmax weighting", self.weighting, ("adaptive", "fixed"))

    @property
    def bound(self) -> float:
        """g at c = 1."""
        return 1.0 + self.t + self._stretch

    @property
    def _stretch(self) -> float:
        return self.t if self.weighting == "adaptive" else 0.0

    def __call__(self, cosine: Tensor, target_logit: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n], [B, 1] -> [B, n], [B, n]."""
        hard, factor = cosine > target_logit.detach(), 1.0 + self._stretch
        slope = torch.where(hard, torch.full_like(cosine, factor), 1.0)
        return torch.where(hard, factor * cosine + self.t, cosine), slope


@dataclass(frozen=True)
class InterclassFilter:
    r"""Classes that look too much like the sample are taken for the same person, wrongly labelled.

    `zero` is what insightface does with `interclass_filtering_threshold`: the logit becomes 0, so
    the class has no gradient but still adds e^0 to the softmax. `remove`: it does not take part,
    its e^{s g} is 0. A filtered class has slope 0 either way.

    Args:
        threshold: cosines above it are filtered, in (-1, 1); insightface's recipes have 0.4.
        action: which of the two.
    """

    threshold: float = 0.4
    action: Literal["zero", "remove"] = "zero"

    def __post_init__(self) -> None:
        if not -1.0 < self.threshold < 1.0:
            raise ConfigError(
                f"InterclassFilter threshold is a cosine in (-1, 1), got {self.threshold}; "
                "leave the rule out to filter nothing"
            )
        check_choice("InterclassFilter action", self.action, ("zero", "remove"))

    @property
    def bound(self) -> float:
        """No logit is raised above 1."""
        return 1.0

    def __call__(self, cosine: Tensor, target_logit: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n], [B, 1] -> [B, n], [B, n]."""
        wrong = cosine > self.threshold
        slope = torch.where(wrong, torch.zeros_like(cosine), 1.0)
        return torch.where(wrong, 0.0 if self.action == "zero" else -math.inf, cosine), slope

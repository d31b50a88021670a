"""What is done to cosines before the softmax: margins on the target, rules for the negatives.

`base` says what a margin is and what it may do beyond; `fixed`, `adaptive` and `negatives` hold the
published ones; `schedules` are pure functions of the step.
"""

from manyface.margins.adaptive import AdaFace, MagFace
from manyface.margins.base import GradientKind, Margin, Stateful, TrainsNorm, frozen, let_observe
from manyface.margins.fixed import ArcFace, CombinedMargin, CosFace, NormFace, SphereFace
from manyface.margins.negatives import CurricularFace, InterclassFilter, MVSoftmax, NegativeRule
from manyface.margins.running import RunningAverages

__all__ = [
    "GradientKind",
    "Margin",
    "NegativeRule",
    "RunningAverages",
    "Stateful",
    "TrainsNorm",
    "frozen",
    "let_observe",
    "NormFace",
    "CosFace",
    "ArcFace",
    "CombinedMargin",
    "SphereFace",
    "AdaFace",
    "MagFace",
    "CurricularFace",
    "MVSoftmax",
    "InterclassFilter",
]

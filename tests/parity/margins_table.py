"""Every margin that the parity tests sweep, and every rule for the negatives."""

import torch

import manyface as mf
from manyface.margins import (
    AdaFace,
    CurricularFace,
    InterclassFilter,
    MagFace,
    MVSoftmax,
    NegativeRule,
    SphereFace,
)


def _adaface() -> AdaFace:
    margin = AdaFace()
    margin.running.load_state({"mean": torch.tensor(11.0), "std": torch.tensor(4.0)})
    return margin


def _curricular() -> CurricularFace:
    rule = CurricularFace()
    rule.running.load_state({"t": torch.tensor(0.4, dtype=torch.float64)})
    return rule


# Functions of the target cosine, and of a length that is not differentiated.
MARGINS: dict[str, mf.Margin] = {
    "normface": mf.NormFace(),
    "cosface": mf.CosFace(0.4),
    "arcface": mf.ArcFace(0.5),
    "arcface_straight_through": mf.ArcFace(0.5, gradient="straight_through"),
    "combined": mf.CombinedMargin(1.3, 0.3, 0.2),
    "combined_straight_through": mf.CombinedMargin(0.9, 0.4, 0.1, gradient="straight_through"),
    "sphereface": SphereFace(3.0, annealing=5.0),
    "adaface": _adaface(),
}
# Margins that train the length of the embeddings; made for embeddings of length 1 to 40.
NORM_MARGINS: dict[str, mf.Margin] = {"magface": MagFace(l_a=2.0, u_a=30.0)}
RULES: dict[str, NegativeRule] = {
    "curricularface": _curricular(),
    "mv_adaptive": MVSoftmax(0.2),
    "mv_fixed": MVSoftmax(0.2, "fixed"),
    "filter_zero": InterclassFilter(0.3, "zero"),
    "filter_remove": InterclassFilter(0.3, "remove"),
}

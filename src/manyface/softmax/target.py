"""A sample's own class: its logit and how that moves, by autograd on B numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.margins import Margin, TrainsNorm


@dataclass(frozen=True)
class Lengths:
    """What a margin says of the lengths a that it trains.

    Attributes:
        slope: d psi / d a, [B, 1].
        penalty: what is added to a sample's loss, [B, 1].
        penalty_slope: d penalty / d a, [B, 1].
    """

    slope: Tensor
    penalty: Tensor
    penalty_slope: Tensor


@dataclass(frozen=True)
class OwnLogit:
    """The logit of each sample's own class, before the scale.

    Attributes:
        logit: psi, [B, 1].
        slope: psi', [B, 1].
        lengths: of a margin that trains them, else None.
    """

    logit: Tensor
    slope: Tensor
    lengths: Lengths | None


def own_logit(cosine: Tensor, norms: Tensor, margin: Margin) -> OwnLogit:
    """psi and its slopes for target cosines [B] and lengths of embeddings [B]."""
    trained = margin if isinstance(margin, TrainsNorm) else None
    with torch.inference_mode(False), torch.enable_grad():
        cosine = cosine.clone().requires_grad_()
        norms = norms.clone().requires_grad_(trained is not None)
        logit = margin(cosine, norms)
        (slope,) = torch.autograd.grad(logit.sum(), cosine, retain_graph=trained is not None)
        lengths = None if trained is None else _lengths(trained, logit, norms)
    return OwnLogit(logit.detach()[:, None], slope[:, None], lengths)


def _lengths(margin: TrainsNorm, logit: Tensor, norms: Tensor) -> Lengths:
    penalty = margin.penalty(norms)  # [B]
    slope, penalty_slope = (
        # A margin may read no length, a penalty may be constant: then nothing flows.
        torch.autograd.grad(each.sum(), norms, allow_unused=True, materialize_grads=True)[0]
        if each.requires_grad
        else torch.zeros_like(norms)
        for each in (logit, penalty)
    )
    return Lengths(slope[:, None], penalty.detach()[:, None], penalty_slope[:, None])

r"""The angular part of all margins: cos(phi) for phi = factor * theta + radians, of any size.

**Past pi.** phi can pass pi, where cos(phi) rises again and would pull a bad sample further away.
It is continued as SphereFace does (Liu et al. 2017, arXiv 1704.08063, eq. 7): on [k pi, (k+1) pi],

    cos(phi)  becomes  (-1)^k cos(phi) - 2k,

which is continuous, has a continuous slope (0 at every k pi) and falls monotonically in theta.
Below 0, where negative `radians` can lead, it is 1, with slope 0 and as smoothly.

**Slope.** With c = cos(theta), psi'(c) = factor * sin(phi) / sin(theta) (times (-1)^k).
"""

import math

import torch
from torch import Tensor


def angular_margin(cosine: Tensor, *, factor: float, radians: float | Tensor) -> Tensor:
    """cos(factor * theta + radians), continued monotonically. [B] -> [B].

    Args:
        cosine: [B], cos(theta).
        factor: above 0.
        radians: one angle, or one per sample [B]; differentiated if it wants to be.
    """
    if factor == 1.0 and isinstance(radians, float) and radians == 0.0:
        return cosine  # cos(arccos(c)) would only lose digits
    # The slope has sin(theta) below the line. At c = 1 or -1 theta has no direction to move in and
    # the clamp makes the gradient 0. It acts within 4 eps of the ends: theta < 0.001 in float32.
    edge = 1.0 - 4.0 * torch.finfo(cosine.dtype).eps
    phi = factor * torch.acos(cosine.clamp(-edge, edge)) + radians  # [B]
    phi = phi.clamp_min(0.0)
    half_turns = torch.floor(phi.detach() / math.pi)
    sign = 1.0 - 2.0 * torch.remainder(half_turns, 2.0)
    return sign * torch.cos(phi) - 2.0 * half_turns


def straight_through(cosine: Tensor, logit: Tensor) -> Tensor:
    """The value of `logit` with the gradient of `cosine`: not the derivative of the value."""
    return cosine + (logit - cosine).detach()

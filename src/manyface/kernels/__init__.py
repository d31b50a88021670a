"""Kernels of a head's step. What they compute has a plain twin in torch, which is what runs
elsewhere: `gpu` is in Triton, `cpu` in C++; `choose` says which, and why.
"""

from manyface.kernels.noise import Noise
from manyface.kernels.rows import inverse_lengths, tangent_part
from manyface.kernels.select import SWITCH, Choice, Kernels, choose

__all__ = ["SWITCH", "Choice", "Kernels", "Noise", "choose", "inverse_lengths", "tangent_part"]

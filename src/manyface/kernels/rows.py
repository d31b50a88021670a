"""Lengths and tangents of rows as they are stored: by kernel where there is one, else in torch."""

from torch import Tensor

from manyface.base import numeric
from manyface.base.numeric import working_dtype
from manyface.kernels.select import choose


def inverse_lengths(rows: Tensor) -> Tensor:
    """1 / |w| of rows [n, D] of any dtype, [n, 1] in their working dtype; 0 for length 0."""
    if choose(rows.device, rows.dtype).language == "c++":
        from manyface.kernels import cpu

        return cpu.inverse_lengths(rows)
    return numeric.inverse_lengths(rows.to(working_dtype(rows.dtype)))


def tangent_part(gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """g - (g . w) w / |w|^2, [n, D] in the working dtype; `gradient` is overwritten if it has it.

    Args:
        gradient: g [n, D], of any dtype.
        rows: w [n, D], of any dtype.
        inverse: 1 / |w| [n, 1].
    """
    if choose(rows.device, rows.dtype).language == "c++":
        from manyface.kernels import cpu

        return cpu.tangent_part(gradient, rows, inverse)
    working = working_dtype(rows.dtype)
    gradient, rows = gradient.to(working), rows.to(working)
    radial = (gradient * rows).sum(dim=1, keepdim=True) * inverse.square()  # [n, 1]
    return gradient.addcmul_(radial, rows, value=-1.0)

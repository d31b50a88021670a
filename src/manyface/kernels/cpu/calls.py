"""The functions of `rows.cpp` on tensors; they need `build.library()` to be one."""

from ctypes import CDLL, c_float, c_long, c_void_p

import torch
from torch import Tensor

from manyface.kernels.cpu.build import library
from manyface.kernels.noise import Noise


def inverse_lengths(rows: Tensor) -> Tensor:
    """1 / |w| of rows [n, D] in float32 or bfloat16, float32 [n, 1]; 0 for a row of length 0."""
    rows = rows.contiguous()
    inverse = torch.empty(len(rows), 1)
    _call("inverse_lengths", rows, _at(rows), _at(inverse), *map(c_long, rows.shape))
    return inverse


def numerators(
    queries: Tensor, rows: Tensor, inverse: Tensor, own: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `kernels.gpu.numerators`, after a product of torch."""
    values, sums = torch.mm(queries, rows.T), torch.empty(len(queries), 1)  # [B, n], [B, 1]
    own, inverse = own.contiguous(), inverse.contiguous()
    shift = None if shift is None else shift.contiguous()
    arrays = (values, inverse, own, shift, sums)
    _call("numerators", values, *map(_at, arrays), *map(c_long, values.shape))
    return values, sums


def remove_radial_(gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """The tangent part of `gradient` float32 [n, D], in place: g - (g . w) w / |w|^2.

    Args:
        gradient: of the rows; contiguous.
        rows: w, float32 or bfloat16 [n, D].
        inverse: 1 / |w|, float32 [n, 1].
    """
    rows, inverse = rows.contiguous(), inverse.contiguous()
    arrays = (gradient, rows, inverse)
    _call("remove_radial", rows, *map(_at, arrays), *map(c_long, rows.shape))
    return gradient


def update_rows(
    rows: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    ids: Tensor,
    *,
    factor: Tensor,
    lr: float,
    momentum: float,
    weight_decay: float,
    noise: Noise | None,
) -> None:
    """As `kernels.gpu.update_rows`, but that `gradient` must be tangent already."""
    gradient, ids = gradient.contiguous(), ids.contiguous()
    words = (None, None, None) if noise is None else (noise.rows, noise.velocity, noise.columns)
    constants = map(c_float, (factor.item(), lr, momentum, weight_decay))
    sizes = map(c_long, gradient.shape)
    arrays = map(_at, (rows, velocity, gradient, ids))
    _call("update", rows, *arrays, *sizes, *constants, *map(_at, words))


def _call(name: str, rows: Tensor, *arguments: c_void_p | c_long | c_float) -> None:
    """The function `name` for the dtype of `rows`, on as many threads as torch has."""
    found = library()
    if not isinstance(found, CDLL):
        raise RuntimeError(f"there are no kernels for this CPU: {found}")
    kind = str(rows.dtype).removeprefix("torch.")
    getattr(found, f"{name}_{kind}")(*arguments, torch.get_num_threads())


def _at(tensor: Tensor | None) -> c_void_p:
    """Where the numbers lie; of tensors that the caller keeps alive."""
    if tensor is None:
        return c_void_p(None)
    if not tensor.is_contiguous():
        raise ValueError("a kernel needs numbers that lie side by side")
    return c_void_p(tensor.data_ptr())

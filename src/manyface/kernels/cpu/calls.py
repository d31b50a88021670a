"""The functions of `rows.cpp` on tensors; they need `build.library()` to be one."""

from ctypes import CDLL, c_float, c_long, c_void_p

import torch
from torch import Tensor

from manyface.kernels.cpu.build import library
from manyface.kernels.noise import Noise


def inverse_lengths(rows: Tensor) -> Tensor:
    """1 / |w| of rows [n, D] in float32 or bfloat16, float32 [n, 1]; 0 for a row of length 0."""
    rows = rows.contiguous()
    inverse = _floats(len(rows), 1)
    _call(f"inverse_lengths_{_kind(rows)}", _at(rows), _at(inverse), *map(c_long, rows.shape))
    return inverse


def numerators(
    queries: Tensor, rows: Tensor, inverse: Tensor, own: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `kernels.gpu.numerators`, after a product of torch."""
    values, sums = torch.mm(queries, rows.T), _floats(len(queries), 1)  # [B, n], [B, 1]
    own, inverse = own.to(torch.int64).contiguous(), inverse.contiguous()
    shift = None if shift is None else shift.contiguous()
    arrays = (values, inverse, own, shift, sums)
    _call(f"numerators_{_kind(values)}", *map(_at, arrays), *map(c_long, values.shape))
    return values, sums


def tangent_part(gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """As `kernels.tangent_part`; both [n, D] in float32 or bfloat16."""
    gradient, rows, inverse = gradient.contiguous(), rows.contiguous(), inverse.contiguous()
    tangent = gradient if gradient.dtype == torch.float32 else _floats(*gradient.shape)
    kinds = f"{_kind(gradient)}_{_kind(rows)}"
    arrays = map(_at, (gradient, rows, inverse, tangent))
    _call(f"tangent_part_{kinds}", *arrays, *map(c_long, rows.shape))
    return tangent


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
    gradient, ids = gradient.contiguous(), ids.to(torch.int64).contiguous()
    words = (None, None, None) if noise is None else (noise.rows, noise.velocity, noise.columns)
    constants = map(c_float, (factor.item(), lr, momentum, weight_decay))
    sizes = map(c_long, gradient.shape)
    arrays = map(_at, (rows, velocity, gradient, ids))
    _call(f"update_{_kind(rows)}", *arrays, *sizes, *constants, *map(_at, words))


def _call(name: str, *arguments: c_void_p | c_long | c_float) -> None:
    """The function `name`, on as many threads as torch has."""
    found = library()
    if not isinstance(found, CDLL):
        raise RuntimeError(f"there are no kernels for this CPU: {found}")
    getattr(found, name)(*arguments, torch.get_num_threads())


def _floats(*shape: int) -> Tensor:
    """Room for float32 numbers here, whatever torch's default dtype and device are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _at(tensor: Tensor | None) -> c_void_p:
    """Where the numbers lie; of tensors that the caller keeps alive."""
    if tensor is None:
        return c_void_p(None)
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError("a kernel of the CPU needs numbers that lie side by side in memory")
    return c_void_p(tensor.data_ptr())

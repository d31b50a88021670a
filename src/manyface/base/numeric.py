"""Small numeric helpers whose edge cases must be the same everywhere."""

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows scaled to length 1, and the inverse lengths; differentiable.

    A row of length 0 has no direction: its unit row and inverse length are 0, so that its gradient
    is 0 too. (`F.normalize` divides by eps there and returns gradients of 1e12.)

    Args:
        rows: [N, D], floating.

    Returns:
        unit rows [N, D]; inverse lengths [N, 1].
    """
    inverse = inverse_lengths(rows)  # [N, 1]
    return rows * inverse, inverse


def inverse_lengths(rows: Tensor) -> Tensor:
    """1 / |row| of rows [N, D] as [N, 1]; 0 for a row of length 0.

    In float32 lengths from 1e-18 to 1e19: of others the squares are lost, and they count as 0.
    """
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # [N, 1]
    tiny = torch.finfo(rows.dtype).tiny
    return torch.where(length > tiny, 1.0 / length.clamp_min(tiny), 0.0)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which rows stored in `dtype` are computed with: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def tangent_gradient(gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of a function of unit rows, with respect to the rows themselves.

    With u = w / |w|:  df/dw = (df/du - (df/du . u) u) / |w|, the part tangent to the sphere.

    Args:
        gradient: df/du [N, D]; overwritten with the result.
        unit: u [N, D].
        inverse: 1 / |w| [N, 1], 0 for a zero row.
    """
    radial = (gradient * unit).sum(dim=1, keepdim=True)  # [N, 1]
    return gradient.addcmul_(radial, unit, value=-1.0).mul_(inverse)


def refuse_double_backward() -> None:
    """Called first in the backward of a function whose gradient has no graph of its own."""
    if torch.is_grad_enabled():  # autograd enables it in backward for create_graph=True alone
        raise RuntimeError(
            "the margin softmax cannot be differentiated twice: its gradient is computed by hand; "
            "use manyface.softmax.dense_margin_softmax where you need create_graph=True"
        )

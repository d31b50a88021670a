"""Rows that a kernel moves: SGD."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from manyface.centers.lazy import RowOptimizer, RowState
from manyface.centers.sgd import VELOCITY, RowSGD
from manyface.kernels import Kernels, Noise, choose


def kernels_of(optimizer: RowOptimizer, weight: Tensor) -> tuple[Kernels, RowSGD] | None:
    """What `move` needs to make the steps of `optimizer` of these rows [N, D]; None: it cannot."""
    kernels = choose(weight.device, weight.dtype).kernels()
    if kernels is None or not isinstance(optimizer, RowSGD):
        return None
    return kernels, optimizer


def move(
    kernels: Kernels,
    rule: RowSGD,
    weight: Tensor,
    state: RowState,
    gradient: Tensor,
    ids: Tensor,
    *,
    factor: Tensor,
    lr: float,
    noise: Callable[[str], Tensor],
    columns: Tensor,
) -> None:
    """One step of the rows `ids`, in place.

    Args:
        kernels: that make it.
        rule: of the step.
        weight: [N, D], float32 or bfloat16.
        state: of all rows.
        gradient: float32 [n, D], tangent.
        ids: int64 [n], distinct.
        factor: of the gradient, scalar.
        lr: learning rate.
        noise: name of a buffer -> what its rounding is made from, int32 [n].
        columns: int32 [1, D], for the rounding too.
    """
    rounds = weight.dtype == torch.bfloat16
    kernels.update_rows(
        weight,
        state.get(VELOCITY),
        gradient,
        ids,
        factor=factor,
        lr=lr,
        momentum=rule.momentum,
        weight_decay=rule.weight_decay,
        noise=Noise(noise("weight"), noise(VELOCITY), columns) if rounds else None,
    )
    increment_version(weight)  # torch does not see what a kernel writes
    rule.note_update(state, ids)

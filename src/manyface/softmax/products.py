"""Matrix products with operands of 8 or more bits and sums in at least float32."""

import torch
from torch import Tensor

from manyface.base.numeric import working_dtype


def product(first: Tensor, second: Tensor) -> Tensor:
    """[m, k] @ [k, n] in the working dtype, summed in it."""
    return as_it_comes(first, second).to(working_dtype(first.dtype))


def as_it_comes(first: Tensor, second: Tensor) -> Tensor:
    """[m, k] @ [k, n], summed in the working dtype, in the dtype that torch stores it in.

    On a CPU the sums of bfloat16 operands are in float32 too, but torch rounds them to bfloat16
    when they are finished (`out_dtype` is for CUDA alone).
    """
    if first.is_cuda and first.dtype == torch.bfloat16:
        return torch.mm(first, second, out_dtype=torch.float32)
    return torch.mm(first, second)

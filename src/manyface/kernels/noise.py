"""What a kernel needs to round float32 to bfloat16 as `centers/rounding.py` does."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """What the random bits of a rounding are made from.

    Attributes:
        rows: of the rows, int32 [n].
        velocity: of their momentum, int32 [n].
        columns: int32 [1, D], odd.
    """

    rows: Tensor
    velocity: Tensor
    columns: Tensor

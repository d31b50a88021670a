r"""Stochastic rounding of float32 to bfloat16: right on average, and the same wherever it is done.

bfloat16 keeps 8 of the 24 bits of a float32. A step of SGD moves a center by far less than half of
the last of them, so rounding to nearest would lose every step; rounding up with a chance equal to
the part that is cut off keeps the mean, and with it the training, without a float32 copy of the
rows. (A float32 is its bits: adding 16 random bits below the cut and cutting them off does it.)

The bits are a function of (seed, lane, step, row, column), not of a generator's state, so that a
row is rounded alike on any rank and after any resume: a 32-bit hash h of all but the column, times
an odd constant of the column, top 16 bits (multiply-shift hashing, Dietzfelbinger et al. 1997).
"""

import torch
from torch import Tensor

from manyface.base.random import stream_seed, torch_generator

# The largest finite bfloat16: nothing is rounded up to infinity.
_LARGEST = torch.finfo(torch.bfloat16).max
# Bits of a NaN that bfloat16 holds; those of a GPU's, 0x7FFFFFFF, would become -0 by the noise.
_NAN = 0x7FC00000


class StochasticRounding:
    """Rounds rows of length `dim`; one for a table.

    Args:
        seed: of the table.
        dim: D.
    """

    def __init__(self, *, seed: int, dim: int) -> None:
        self._seed = seed
        draw = torch_generator(seed, "rounding", "columns")
        columns = torch.randint(-(2**31), 2**31, (1, dim), generator=draw, dtype=torch.int64)
        self._columns = columns.to(torch.int32) | 1  # [1, D], odd

    def round_(self, values: Tensor, ids: Tensor, *, step: int, lane: str) -> Tensor:
        """`values` float32 [n, D] rounded to numbers of bfloat16, in place, still float32.

        Args:
            values: finite, or NaN, which stays; infinity becomes the largest bfloat16.
            ids: int64 [n], class ids of the rows.
            step: number of the update.
            lane: what is rounded: its draws have nothing to do with those of another lane.
        """
        words, is_nan = self.words(ids, step=step, lane=lane), values.isnan()  # [n], [n, D]
        noise = words[:, None] * self.columns(values.device)  # [n, D], int32 that wraps
        noise.bitwise_right_shift_(16).bitwise_and_(0xFFFF)
        bits = values.clamp_(-_LARGEST, _LARGEST).view(torch.int32)
        bits.add_(noise).bitwise_and_(-0x10000).masked_fill_(is_nan, _NAN)
        return values

    def words(self, ids: Tensor, *, step: int, lane: str) -> Tensor:
        """h of the rows `ids`, int32 [n]."""
        return _hash32(ids, stream_seed(self._seed, "rounding", lane, step))

    def columns(self, device: torch.device) -> Tensor:
        """The odd constants of the columns, int32 [1, D]."""
        self._columns = self._columns.to(device)
        return self._columns


def _hash32(ids: Tensor, key: int) -> Tensor:
    """int32 [n]: the low half of SplitMix64's finaliser of ids * golden + key."""
    signed = key - 2**64 if key >= 2**63 else key
    values = ids * -0x61C8864680B583EB + signed  # int64 that wraps
    values = (values ^ _shifted(values, 30)) * -0x40A7B892E31B1A47
    values = (values ^ _shifted(values, 27)) * -0x6B2FB644ECCEEE15
    values = values ^ _shifted(values, 31)
    return values.to(torch.int32)


def _shifted(values: Tensor, count: int) -> Tensor:
    """int64 shifted right as if it were unsigned."""
    return (values >> count) & ((1 << (64 - count)) - 1)

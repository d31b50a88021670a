"""Which record stands at which position of training, without storing an order.

Training sees an endless row of positions 0, 1, 2, ... Position p lies in epoch p // length and each
epoch is its own keyed permutation of the records (base/permutation.py). The answer depends on
(seed, p) only: no state to save, O(1) memory for any number of records, and any worker or rank may
ask for any slice. Global batch b of size G is positions [b G, (b + 1) G); it may straddle two
epochs, so no image is dropped at the end of an epoch and no batch is short.
"""

import numpy as np
import numpy.typing as npt

from manyface.base.permutation import Permutation
from manyface.base.random import stream_seed

Int64Array = npt.NDArray[np.int64]


class EpochSampler:
    """Every record exactly once per epoch, in an order that is computed from (seed, epoch).

    Args:
        length: number of records, >= 1.
        seed: of this stream; another seed gives unrelated orders.
    """

    def __init__(self, length: int, *, seed: int) -> None:
        if length < 1:
            raise ValueError(f"a sampler needs at least one record, got {length}")
        self.length = length
        self.seed = seed

    def indices(self, positions: npt.NDArray[np.integer]) -> Int64Array:
        """Records at `positions`: int [B], each >= 0 -> int64 [B], each in [0, length)."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"positions must be >= 0, got {positions.min()}")
        epochs, offsets = np.divmod(positions, self.length)
        records = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            records[here] = self._order(int(epoch))(offsets[here])
        return records

    def _order(self, epoch: int) -> Permutation:
        return Permutation(self.length, seed=stream_seed(self.seed, "epoch", epoch))

"""The center table: one row per class, with the state its optimizer keeps for it.

A row's first value depends on (seed, class id) only, so that any number of ranks starts equal.
Rows are drawn N(0, 0.01^2) as in the papers' code; only their direction matters to the softmax,
their length sets how fast the direction turns.
"""

import numpy as np
import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.random import numpy_generator
from manyface.centers.optim import RowSGD

INITIAL_DEVIATION = 0.01
# Rows are drawn in blocks: one generator per row would cost more than its D numbers.
_BLOCK_ROWS = 64


def initial_rows(start: int, stop: int, *, dim: int, seed: int) -> Tensor:
    """First values of rows [start, stop), float32 [stop - start, dim]."""
    first_block, last_block = start // _BLOCK_ROWS, -(-stop // _BLOCK_ROWS)
    blocks = [
        numpy_generator(seed, "centers", block).standard_normal((_BLOCK_ROWS, dim), np.float32)
        for block in range(first_block, last_block)
    ]
    rows = np.concatenate([*blocks, np.empty((0, dim), np.float32)])
    offset = first_block * _BLOCK_ROWS
    return torch.from_numpy(rows[start - offset : stop - offset]) * INITIAL_DEVIATION


class CenterTable(nn.Module):
    """Class centers [N, D] and their momentum [N, D], as buffers: no autograd, no dense gradient.

    Args:
        num_rows: N, number of classes.
        dim: D, length of an embedding.
        seed: of the first values.
        optimizer: how `ActiveRows.update` moves rows.
        dtype: float32 or float64.
        device: where the rows live.
    """

    weight: Tensor
    velocity: Tensor

    def __init__(
        self,
        num_rows: int,
        dim: int,
        *,
        seed: int,
        optimizer: RowSGD,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if num_rows < 1 or dim < 1:
            raise ConfigError(
                f"a center table needs num_classes >= 1 and dim >= 1, got {num_rows} and {dim}"
            )
        self.optimizer = optimizer
        self.register_buffer("weight", torch.empty(num_rows, dim, dtype=dtype, device=device))
        self.register_buffer("velocity", torch.zeros(num_rows, dim, dtype=dtype, device=device))
        self._draw_rows(seed)

    def active(self, ids: Tensor | None = None) -> "ActiveRows":
        """The rows `ids` (int64 [K], sorted, distinct), or all of them."""
        return ActiveRows(self, ids)

    def _draw_rows(self, seed: int) -> None:
        num_rows, dim = self.weight.shape
        step = 256 * _BLOCK_ROWS
        for start in range(0, num_rows, step):
            stop = min(start + step, num_rows)
            self.weight[start:stop] = initial_rows(start, stop, dim=dim, seed=seed)


class ActiveRows:
    """The rows of a table that take part in one step; satisfies `softmax.streamed.Rows`.

    All rows are read as views of the table, chosen ones are gathered chunk by chunk and written
    back, so a step needs O(chunk D) bytes beyond the table in either case.
    """

    def __init__(self, table: CenterTable, ids: Tensor | None) -> None:
        self.table = table
        self.ids = ids

    def __len__(self) -> int:
        return self.table.weight.shape[0] if self.ids is None else self.ids.shape[0]

    def read(self, start: int, stop: int) -> Tensor:
        """Active rows [start, stop), [n, D]."""
        return self._read(self.table.weight, start, stop)

    def take(self, places: Tensor) -> Tensor:
        """Copies [N, D] of the active rows at `places`."""
        return self.table.weight[places if self.ids is None else self.ids[places]]

    def update(self, start: int, stop: int, gradient: Tensor, *, lr: float) -> None:
        """One optimizer step of active rows [start, stop); `gradient` [n, D] is overwritten."""
        rows, velocity = self.read(start, stop), self._read(self.table.velocity, start, stop)
        self.table.optimizer.update_(rows, velocity, gradient, lr=lr)
        if self.ids is not None:
            self.table.weight[self.ids[start:stop]] = rows
            self.table.velocity[self.ids[start:stop]] = velocity

    def _read(self, values: Tensor, start: int, stop: int) -> Tensor:
        return values[start:stop] if self.ids is None else values[self.ids[start:stop]]

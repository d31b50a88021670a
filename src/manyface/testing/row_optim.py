"""Row-sparse optimizers written out row by row and step by step, and the least table to drive one.

Nothing is put off here: at every step a row either moves or misses it, and what that means stands
in one line each.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from manyface.centers.lazy import RowOptimizer, RowState


class DecayOnlySGD:
    """A missed step decays the row and leaves its momentum (FBGEMM's rule).

    Args:
        rows: first values [N, D].
        momentum: mu.
        weight_decay: wd.
    """

    def __init__(self, rows: Tensor, *, momentum: float, weight_decay: float) -> None:
        self.rows, self.velocity = rows.clone(), torch.zeros_like(rows)
        self.momentum, self.weight_decay = momentum, weight_decay

    def step(self, ids: Tensor, gradient: Tensor, *, lr: float) -> None:
        """Rows `ids` move by `gradient` [k, D], all others miss the step."""
        gradient_of = dict(zip(ids.tolist(), gradient, strict=True))
        for i, (row, velocity) in enumerate(zip(self.rows, self.velocity, strict=True)):
            if i in gradient_of:
                velocity[:] = self.momentum * velocity + gradient_of[i] + self.weight_decay * row
                row[:] = row - lr * velocity
            else:
                row[:] = row - lr * self.weight_decay * row


class TouchedAdamW:
    """AdamW whose missed steps decay the row and its moments, and move nothing.

    Args:
        rows: first values [N, D].
        betas: of the moments.
        eps: added to the root.
        weight_decay: decoupled.
        row_wise: one second moment per row, [N, 1], of the mean square.
    """

    def __init__(
        self,
        rows: Tensor,
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        row_wise: bool,
    ) -> None:
        self.rows, self.first = rows.clone(), torch.zeros_like(rows)
        self.second = torch.zeros_like(rows[:, :1] if row_wise else rows)
        self.betas, self.eps, self.weight_decay, self.row_wise = betas, eps, weight_decay, row_wise
        self.num_steps = 0

    def step(self, ids: Tensor, gradient: Tensor, *, lr: float) -> None:
        """Rows `ids` move by `gradient` [k, D], all others miss the step."""
        self.num_steps += 1
        gradient_of = dict(zip(ids.tolist(), gradient, strict=True))
        for i in range(self.rows.shape[0]):
            self.rows[i] -= lr * self.weight_decay * self.rows[i]
            if i in gradient_of:
                self._touch(i, gradient_of[i], lr=lr)
            else:
                self.first[i] *= self.betas[0]
                self.second[i] *= self.betas[1]

    def _touch(self, i: int, gradient: Tensor, *, lr: float) -> None:
        beta1, beta2 = self.betas
        square = (gradient**2).mean() if self.row_wise else gradient**2
        self.first[i] = beta1 * self.first[i] + (1 - beta1) * gradient
        self.second[i] = beta2 * self.second[i] + (1 - beta2) * square
        first = self.first[i] / (1 - beta1**self.num_steps)
        second = self.second[i] / (1 - beta2**self.num_steps)
        self.rows[i] -= lr * first / (second.sqrt() + self.eps)


class DrivenTable:
    """Rows with the state that an optimizer declares, driven as `centers/lazy.py` asks.

    Args:
        rows: first values [N, D].
        optimizer: of this table alone.
        chunk_size: rows at a time.
    """

    def __init__(self, rows: Tensor, optimizer: RowOptimizer, *, chunk_size: int) -> None:
        self.rows, self.optimizer, self.chunk_size = rows.clone(), optimizer, chunk_size
        declared = optimizer.row_state(dim=rows.shape[1], dtype=rows.dtype)
        self.state = {
            name: torch.zeros((rows.shape[0], *spec.shape), dtype=spec.dtype)
            for name, spec in declared.items()
        }

    def read(self, ids: Tensor) -> Tensor:
        """Rows `ids` (int64 [k], distinct) as the forward pass must see them, copies [k, D]."""
        for _, rows, state in self._chunks(ids):
            self.optimizer.catch_up_(rows, state)
        return self.rows[ids]

    def step(self, ids: Tensor, gradient: Tensor, *, lr: float) -> None:
        """Rows `ids`, read since the last step, move by `gradient` [k, D]."""
        for start, rows, state in self._chunks(ids):
            chunk = gradient[start : start + self.chunk_size].clone()
            self.optimizer.update_(rows, state, chunk, lr=lr)
        self.optimizer.finish_step(lr=lr)
        if self.optimizer.window_is_full:
            self.flush()

    def flush(self) -> None:
        """Bring all rows up to date."""
        everything = torch.arange(self.rows.shape[0])
        self.optimizer.flush_((rows, state) for _, rows, state in self._chunks(everything))

    def _chunks(self, ids: Tensor) -> Iterator[tuple[int, Tensor, RowState]]:
        """(start, rows, state) of each chunk, copies that are written back when it is done with."""
        for start in range(0, ids.shape[0], self.chunk_size):
            chosen = ids[start : start + self.chunk_size]
            rows = self.rows[chosen]
            state = {name: values[chosen] for name, values in self.state.items()}
            yield start, rows, state
            self.rows[chosen] = rows
            for name, values in state.items():
                self.state[name][chosen] = values

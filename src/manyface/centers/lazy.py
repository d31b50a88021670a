r"""What row-sparse optimizers share: what becomes of the steps that a row misses.

A step touches few rows of a table. What it means for the others (decay, drift of the momentum) is
not done at once, which would cost a pass over the table; each row keeps the number of steps that it
includes (`touched`, int32, so 2^31 - 1 steps at most), and what it missed is applied when it is
next read. A table drives this chunk by chunk, with rows [n, D] and their state as views or copies:

    optimizer.catch_up_(rows, state)                 # before the forward pass reads them
    optimizer.update_(rows, state, gradient, lr=lr)  # rows that are caught up
    optimizer.finish_step(lr=lr)                     # once a step, after its last chunk
    if optimizer.window_is_full:
        optimizer.flush_(all_chunks)

*Cost.* A flush is one pass over the table in `max_window` steps: amortised N / max_window rows a
step beside the k rows that the step touches, so choose max_window well above N / k (at a sample
rate of 0.1 the default of 1024 adds 1 row to 100). A step at step 10^6 costs what it costs at step
10; a flush is a peak in time, not in memory.

*State.* The optimizer owns the window of missed steps (`state_dict`: tensors only) and belongs to
one table; on several ranks each has its own, equal because all see the same learning rates. State
of rows is declared by `row_state`; the table allocates it as zeros, wherever the rows live. After a
flush `touched` is `num_steps` for every row, as it must be for a row that is added.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.base.errors import CheckpointError
from manyface.centers.window import Window

DEFAULT_MAX_WINDOW = 1024
TOUCHED = "touched"

# State of n rows by name: each [n, *shape] as `row_state` declares it.
RowState = Mapping[str, Tensor]


@dataclass(frozen=True)
class RowStateSpec:
    """One piece of state of every row: a tensor [N, *shape] that starts as zeros."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class RowOptimizer(ABC):
    """Moves some rows of a table; `window` is None where a missed step changes nothing."""

    def __init__(self, window: Window | None) -> None:
        self.window = window
        self._inside_step = False

    def row_state(self, *, dim: int, dtype: torch.dtype) -> dict[str, RowStateSpec]:
        """State to allocate for rows [N, dim], by name.

        Args:
            dim: D.
            dtype: of the arithmetic (float32 for rows stored in bfloat16).
        """
        moments = {n: RowStateSpec(s, dtype) for n, s in self._moments(dim).items()}
        lazy = {} if self.window is None else {TOUCHED: RowStateSpec((), torch.int32)}
        return moments | lazy

    def catch_up_(self, rows: Tensor, state: RowState) -> None:
        """Apply the steps that `rows` [n, D] have missed, in place; a second call changes nothing.

        Rows and state are float32 or float64 copies or views; `state` is written too.
        """
        if self.window is not None and self.window.length > 0:
            self._make_up_(rows, state, self.window)
            state[TOUCHED].clamp_min_(self.window.num_steps)

    def update_(self, rows: Tensor, state: RowState, gradient: Tensor, *, lr: float) -> None:
        """One step of `rows` [n, D] that are caught up, in place; `gradient` is overwritten.

        A row takes at most one update a step; add up its gradients before.
        """
        self._move_(rows, state, gradient, lr=lr)
        self.note_update(state)

    def note_update(self, state: RowState, rows: Tensor | None = None) -> None:
        """Rows (int64 [k], None: all) of `state` have been moved in the step that is under way."""
        self._inside_step = True
        if self.window is not None:
            place: Tensor | slice = slice(None) if rows is None else rows
            state[TOUCHED][place] = self.window.num_steps + 1

    def finish_step(self, *, lr: float) -> None:
        """Count the step, at the learning rate of its updates; also where no row was touched."""
        if self.window is not None:
            self.window.append(self._missed_step(lr))
        self._inside_step = False

    @property
    def window_is_full(self) -> bool:
        """Whether the next step needs a `flush_` before it."""
        return self.window is not None and self.window.is_full

    def flush_(self, chunks: Iterable[tuple[Tensor, RowState]]) -> None:
        """Bring all rows up to date and empty the window; after an interrupt, call it again.

        Args:
            chunks: rows [n, D] and their state, covering each row of the table once. A table whose
                chunks are copies gives a generator that writes a chunk back when it is resumed. Not
                asked for anything if no step has been missed.
        """
        self._refuse_inside_step("flush_")
        if self.window is None or self.window.length == 0:
            return
        for rows, state in chunks:
            self.catch_up_(rows, state)
        self.window.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that is not of a row; goes with the rows and their state, `touched` too."""
        self._refuse_inside_step("state_dict")
        return {} if self.window is None else self.window.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where the `state_dict` was taken.

        Raises:
            CheckpointError: it is of another optimizer, of another mode, or its window is longer
                than `max_window`.
        """
        self._inside_step = False
        expected = self.state_dict().keys()
        if state.keys() != expected:
            raise CheckpointError(
                f"expected optimizer state {sorted(expected)}, got {sorted(state)}; load it into "
                "an optimizer of the same kind and mode"
            )
        if self.window is not None:
            self.window.load_state_dict(state)

    @abstractmethod
    def _moments(self, dim: int) -> dict[str, tuple[int, ...]]:
        """Shape per row of the floating-point state, by name."""

    @abstractmethod
    def _missed_step(self, lr: float) -> list[list[float]]:
        """A_t of a step that a row misses, [m][m]."""

    @abstractmethod
    def _make_up_(self, rows: Tensor, state: RowState, window: Window) -> None:
        """Apply the window to rows [n, D] and their moments, in place."""

    @abstractmethod
    def _move_(self, rows: Tensor, state: RowState, gradient: Tensor, *, lr: float) -> None:
        """One step of rows [n, D] and their moments, in place; `gradient` is overwritten."""

    def _refuse_inside_step(self, name: str) -> None:
        if self._inside_step:
            raise RuntimeError(
                f"{name} in the middle of a step: some rows have moved and some have not; call "
                "finish_step first"
            )

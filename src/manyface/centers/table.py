"""The center table: one row per class, with the state its optimizer keeps for it.

A row's first value depends on (seed, class id) only, so that any number of ranks starts equal.
Rows are drawn N(0, 0.01^2) as in the papers' code; only their direction matters to the softmax,
their length sets how fast the direction turns.

Rows, and what the optimizer keeps of their size, lie in float64, float32 or bfloat16. Arithmetic on
bfloat16 is in float32 and its results are rounded stochastically (`rounding`).
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from manyface.base.errors import ConfigError
from manyface.base.numeric import working_dtype
from manyface.base.random import numpy_generator
from manyface.base.threads import use_one_core
from manyface.centers.lazy import RowOptimizer, RowState
from manyface.centers.place import InMemory, Place
from manyface.centers.read_ahead import Draw, RowBlocks
from manyface.centers.rounding import StochasticRounding
from manyface.centers.sgd import VELOCITY, RowSGD
from manyface.centers.staging import Stage, Staging
from manyface.kernels import Kernels, Noise, choose

INITIAL_DEVIATION = 0.01
# Rows are drawn in blocks: one generator per row would cost more than its D numbers.
_BLOCK_ROWS = 64
# A thread draws so many at a time, in three copies; a round is so many times for each thread.
DRAWN_ROWS, _ROUND = 16 * _BLOCK_ROWS, 16
# Rows that are moved at a time: their float32 copies should stay in a core's cache.
_ROWS_AT_A_TIME = 1024
_WEIGHT = "weight"


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
    """Class centers [N, D] and the state of their optimizer, as buffers: no autograd.

    Args:
        num_rows: N, number of classes; on one of several ranks those that it has, perhaps none.
        dim: D, length of an embedding.
        seed: of the first values and of rounding.
        optimizer: how rows move; of this table alone.
        dtype: float32, float64 or bfloat16.
        device: that computes.
        place: where the rows live, instead of on `device`: `InMemory("cpu")`, `InFiles(folder)`.
            Rows of a step are moved to `device` and back; `.to(device)` leaves them where they are.
        first_row: that of this rank among the rows of all, which draws of rows are counted by.

    Raises:
        ConfigError: a number below 0, no `dim`, or no room for the rows.
    """

    weight: Tensor
    velocity: Tensor  # where the optimizer has one

    def __init__(
        self,
        num_rows: int,
        dim: int,
        *,
        seed: int,
        optimizer: RowOptimizer,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        place: Place | None = None,
        first_row: int = 0,
    ) -> None:
        super().__init__()
        if num_rows < 0 or dim < 1:
            raise ConfigError(f"a center table needs dim >= 1, got {num_rows} rows of {dim}")
        self.optimizer, self.dtype = optimizer, dtype
        self.first_row = first_row
        self._place = place or InMemory(device)  # kept: a folder is locked while it lives
        self._computes_on = None if place is None else torch.empty(0, device=device).device
        tensors = self._tensors(num_rows, dim)
        self._state_names = [name for name in tensors if name != _WEIGHT]
        self._place.reserve(sum(math.prod(s) * d.itemsize for s, d in tensors.values()))
        self._make(tensors)
        self.reseed(seed)
        self._caught_up = 0  # how often missed steps were written
        self._staging, self._staged_version = Staging(), 0
        self._draw_rows()

    @property
    def device(self) -> torch.device:
        """That computes; where the rows are, unless they have a place of their own."""
        return self._computes_on or self.weight.device

    @property
    def is_elsewhere(self) -> bool:
        """Whether rows are moved to the device that computes, and back."""
        return self.weight.device != self.device

    def read_ahead(self, draw: Draw) -> None:
        """The next step reads the rows that `draw` gives, which may be called in a thread."""
        if self.is_elsewhere and self.weight.device.type == "cpu":
            self._drop_unnoted()
            names = [_WEIGHT, *self._state_names]
            asked = partial(self._asked, draw)
            self._staging.begin(asked, names, len(self.weight), self._fetch_named, self.device)
        else:
            self._place.read_ahead(draw)

    def _asked(self, draw: Draw) -> RowBlocks:
        """What `draw` gives, as it is asked of the disk."""
        blocks = draw()
        self._place.read_ahead(lambda: blocks)
        return blocks

    def stage(self) -> Stage | None:
        """Rows of this step that were fetched before it, if there are any."""
        self._drop_unnoted()
        return self._staging.take(self._fetch_named)

    def note_written(self, ids: Tensor | None) -> None:
        """Rows `ids`, None: all, have just been written."""
        if ids is None:
            self._staging.drop()
        else:
            self._staging.note(ids)
        self._staged_version = self.weight._version

    def _drop_unnoted(self) -> None:
        """Forget what is staged if somebody else has written rows: a load, a user."""
        if self._staged_version != self.weight._version:
            self._staging.drop()
            self._staged_version = self.weight._version

    def _fetch_named(self, name: str, ids: Tensor) -> Tensor:
        return self.fetch(getattr(self, name), ids)

    def ask(self, ids: Tensor) -> None:
        """The rows `ids` are about to be read."""
        self._place.ask(ids)

    def fetch(self, values: Tensor, ids: Tensor | slice) -> Tensor:
        """`values[ids]` of a buffer on the device that computes: a view for a slice that is there,
        else a copy."""
        if not self.is_elsewhere:
            return values[ids]
        count = len(range(*ids.indices(len(values)))) if isinstance(ids, slice) else len(ids)
        staged = self._buffer(values, count)
        if isinstance(ids, slice):
            staged.copy_(values[ids])
        else:
            torch.index_select(values, 0, ids.to(values.device), out=staged)
        return staged.to(self.device, non_blocking=True)

    def _buffer(self, values: Tensor, count: int) -> Tensor:
        """Room for `count` rows of `values` where these lie; pinned if it is the host that gives
        them to a GPU, whose copy would go through a pinned buffer anyhow."""
        pinned = self.device.type == "cuda" and values.device.type == "cpu"
        return values.new_empty(count, *values.shape[1:], pin_memory=pinned)

    def active(self, ids: Tensor | None = None) -> "ActiveRows":
        """The rows `ids` (int64 [K], sorted, distinct), or all of them, brought up to date."""
        rows, before = ActiveRows(self, ids), self.weight._version
        window = self.optimizer.window
        if window is not None and window.length > 0:
            for values, state in rows.lent(step=window.num_steps, lane="catch-up"):
                self.optimizer.catch_up_(values, state)
        self._caught_up += self.weight._version - before
        return rows

    @property
    def version(self) -> int:
        """Another one after every change of rows, but for missed steps that are made up: rows that
        were active since the last step include them already."""
        return self.weight._version - self._caught_up

    def finish_step(self, *, lr: float) -> None:
        """After the last update of a step."""
        self._staging.turn()
        self.optimizer.finish_step(lr=lr)
        if self.optimizer.window_is_full:
            self.flush()

    def flush(self) -> None:
        """Apply to every row the steps that it has missed."""
        if (window := self.optimizer.window) is not None:
            before = self.weight._version
            everything = ActiveRows(self, None).lent(step=window.num_steps, lane="flush")
            self.optimizer.flush_(everything)
            self._caught_up += self.weight._version - before

    def change_optimizer(self, optimizer: RowOptimizer) -> None:
        """Bring all rows up to date and go on with another optimizer, its state zeros."""
        self.flush()
        self._staging.drop()
        self.optimizer = optimizer
        for name in self._state_names:
            delattr(self, name)
        num_rows, dim = self.weight.shape
        tensors = self._tensors(num_rows, dim)
        del tensors[_WEIGHT]
        self._state_names = list(tensors)
        self._make(tensors)
        if self._computes_on is None:
            self.to(self.weight.device)  # which may not be where it was made

    def state_of_rows(self) -> dict[str, Tensor]:
        """The optimizer's state by name, [N, ...] each."""
        return {name: getattr(self, name) for name in self._state_names}

    def rounded(self, name: str, values: Tensor, ids: Tensor, *, step: int, lane: str) -> Tensor:
        """`values` [n, D] of the buffer `name` as they can be stored."""
        if getattr(self, name).dtype != torch.bfloat16:
            return values
        return self._rounding.round_(values, ids + self.first_row, step=step, lane=f"{lane} {name}")

    def reseed(self, seed: int) -> None:
        """Round, and draw first values, by another seed from now on."""
        self.seed = seed
        self._rounding = StochasticRounding(seed=seed, dim=self.weight.shape[1])

    def noise(self, ids: Tensor, *, step: int) -> Noise | None:
        """What a kernel rounds an update of rows `ids` with; None if these are not rounded."""
        if self.dtype != torch.bfloat16:
            return None
        weight, velocity = (
            self._rounding.words(ids + self.first_row, step=step, lane=f"update {name}")
            for name in (_WEIGHT, VELOCITY)
        )
        return Noise(weight, velocity, self._rounding.columns(ids.device))

    def _make(self, tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        """Buffers of zeros, where the table lies."""
        for name, (shape, dtype) in tensors.items():
            self.register_buffer(name, self._place.zeros(name, shape, dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CenterTable":
        """What `.to` and the like do: rows with a place of their own stay there."""
        if self._computes_on is None:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            return self
        moved = fn(torch.empty(0, dtype=self.dtype, device=self._computes_on))
        if moved.dtype != self.dtype:
            raise ConfigError(
                f"class centers with a place of their own stay {self.dtype}, got {moved.dtype}; "
                "keep the head out of .half() and .to(dtype)"
            )
        self._computes_on = moved.device
        return self

    def _tensors(self, num_rows: int, dim: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of rows and state; state as large as the rows has their dtype."""
        working = working_dtype(self.dtype)
        tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]
        tensors = {_WEIGHT: ((num_rows, dim), self.dtype)}
        for name, spec in self.optimizer.row_state(dim=dim, dtype=working).items():
            dtype = self.dtype if spec.shape == (dim,) and spec.dtype == working else spec.dtype
            tensors[name] = ((num_rows, *spec.shape), dtype)
        return tensors

    def _draw_rows(self) -> None:
        """On as many threads as torch has; in rounds, so that Ctrl-C waits for one of them only."""
        threads = torch.get_num_threads()
        starts = range(0, self.weight.shape[0], DRAWN_ROWS)
        with ThreadPoolExecutor(threads, initializer=use_one_core) as pool:
            for first in range(0, len(starts), _ROUND * threads):
                list(pool.map(self._draw_piece, starts[first : first + _ROUND * threads]))

    def _draw_piece(self, start: int) -> None:
        num_rows, dim = self.weight.shape
        stop = min(start + DRAWN_ROWS, num_rows)
        first, last = self.first_row + start, self.first_row + stop
        self.weight[start:stop] = initial_rows(first, last, dim=dim, seed=self.seed)


class ActiveRows:
    """The rows of a table that take part in one step; satisfies `softmax.rows.Rows`.

    All rows are read as views of the table, chosen ones, and rows that lie elsewhere, are gathered
    chunk by chunk and written back, so a step needs O(chunk D) bytes beyond the table in any case.
    """

    def __init__(self, table: CenterTable, ids: Tensor | None) -> None:
        self.table = table
        self.ids = None if ids is None else ids.to(table.device)
        self._stored = None if ids is None else ids.to(table.weight.device)  # where the rows are
        self._stage = table.stage() if ids is not None and table.is_elsewhere else None
        self._last: tuple[int, int, Tensor] | None = None  # a chunk is read, then updated

    @property
    def dtype(self) -> torch.dtype:
        """In which the table is stored."""
        return self.table.dtype

    def __len__(self) -> int:
        return self.table.weight.shape[0] if self.ids is None else self.ids.shape[0]

    def read(self, start: int, stop: int) -> Tensor:
        """Active rows [start, stop), [n, D]."""
        if self._views:
            return self.table.weight[start:stop]
        if self._last is None or self._last[:2] != (start, stop):
            self._last = (start, stop, self._some(_WEIGHT, start, stop))
        return self._last[2]

    def take(self, places: Tensor) -> Tensor:
        """Copies [N, D] of the active rows at `places`."""
        places = places.to(self.table.device)
        ids = places if self.ids is None else self.ids[places]
        self.table.ask(ids)
        return self.table.fetch(self.table.weight, ids)

    def update(
        self, start: int, stop: int, gradient: Tensor, *, factor: Tensor, lr: float, step: int
    ) -> None:
        """One optimizer step of active rows [start, stop); `gradient` [n, D] is overwritten.

        Args:
            start: first place.
            stop: one past the last.
            gradient: [n, D] in the working dtype.
            factor: of the gradient, scalar.
            lr: learning rate.
            step: number of the step, for rounding.
        """
        if (by_kernel := self._kernels()) is not None:
            ids = self._ids(start, stop)
            self._move(*by_kernel, ids, gradient, factor=factor, lr=lr, step=step)
            return
        lent = self.lent(start, stop, step=step, lane="update")
        pieces = torch.split(gradient.mul_(factor), _ROWS_AT_A_TIME)
        for (values, state), piece in zip(lent, pieces, strict=True):
            self.table.optimizer.update_(values, state, piece, lr=lr)
        self._last = None

    def _kernels(self) -> tuple[Kernels, RowSGD] | None:
        """That move rows where they lie, and the rule by which; None: plain torch does it."""
        table = self.table
        kernels = choose(table.weight.device, table.weight.dtype).kernels()
        if kernels is None or table.is_elsewhere or not isinstance(table.optimizer, RowSGD):
            return None
        return kernels, table.optimizer

    def _move(
        self,
        kernels: Kernels,
        rule: RowSGD,
        ids: Tensor,
        gradient: Tensor,
        *,
        factor: Tensor,
        lr: float,
        step: int,
    ) -> None:
        """`update` by the kernel, with the same rounding."""
        table, state = self.table, self.table.state_of_rows()
        kernels.update_rows(
            table.weight,
            state.get(VELOCITY),
            gradient,
            ids,
            factor=factor,
            lr=lr,
            momentum=rule.momentum,
            weight_decay=rule.weight_decay,
            noise=table.noise(ids, step=step),
        )
        increment_version(table.weight)  # torch does not see what a kernel writes
        rule.note_update(state, ids)
        self._last = None

    def lent(
        self, start: int = 0, stop: int | None = None, *, step: int, lane: str
    ) -> Iterator[tuple[Tensor, RowState]]:
        """Rows [start, stop) and their state, some at a time, in the working dtype.

        They may be written to: views where they are stored so, or copies that are stored when the
        next ones are asked for; `step` and `lane` are those of the rounding.
        """
        stop = len(self) if stop is None else stop
        for first in range(start, stop, _ROWS_AT_A_TIME):
            last = min(first + _ROWS_AT_A_TIME, stop)
            rows, state = self._working(first, last)
            yield rows, state
            self._store(first, last, {_WEIGHT: rows, **state}, step=step, lane=lane)

    def _working(self, start: int, stop: int) -> tuple[Tensor, RowState]:
        dtype = working_dtype(self.table.dtype)
        state = {name: self._some(name, start, stop) for name in self.table.state_of_rows()}
        return self._current(start, stop).to(dtype), {
            name: values.to(dtype) if values.is_floating_point() else values
            for name, values in state.items()
        }

    def _store(self, start: int, stop: int, tensors: RowState, *, step: int, lane: str) -> None:
        for name, values in tensors.items():
            stored = getattr(self.table, name)
            if self._views and values.dtype == stored.dtype:
                continue
            ids = self._ids(start, stop)
            kept = self.table.rounded(name, values, ids, step=step, lane=lane).to(stored.dtype)
            if self._stored is None:
                stored[start:stop] = kept
                continue
            stored.index_copy_(0, self._stored[start:stop], kept.to(stored.device))
            if self._stage is not None:
                self._stage.write(name, self._stored[start:stop], kept)
        self.table.note_written(None if self._stored is None else self._stored[start:stop])

    def _current(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), of the chunk that was read last if they are in it."""
        if self._last is not None and self._last[0] <= start and stop <= self._last[1]:
            return self._last[2][start - self._last[0] : stop - self._last[0]]
        return self._some(_WEIGHT, start, stop)

    def _ids(self, start: int, stop: int) -> Tensor:
        if self.ids is not None:
            return self.ids[start:stop]
        return torch.arange(start, stop, device=self.table.device)

    @property
    def _views(self) -> bool:
        """Whether rows are views of the table."""
        return self.ids is None and not self.table.is_elsewhere

    def _some(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a buffer."""
        if self._stage is not None and self._stored is not None:
            return self._stage.read(name, self._stored[start:stop], self.table._fetch_named)
        chosen = slice(start, stop) if self._stored is None else self._stored[start:stop]
        return self.table.fetch(getattr(self.table, name), chosen)

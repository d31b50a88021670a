"""Tensors of which each rank holds some rows: as they are given to `save`, as they are read again.

Which stored rows make the wanted ones is found by the planner of torch.distributed.checkpoint; its
own storage and its pickled messages are not used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from manyface.base.errors import CheckpointError
from manyface.parallel import Shard


@dataclass(frozen=True)
class RowShard:
    """The rows of a table that this rank holds; may stand wherever a tensor may in a saved tree.

    Attributes:
        values: [n, ...], any dtype that a checkpoint holds.
        shard: which rows of how many they are; len(shard) = n.
    """

    values: Tensor
    shard: Shard

    def __post_init__(self) -> None:
        if self.values.ndim == 0 or self.values.shape[0] != len(self.shard):
            raise ValueError(f"expected {len(self.shard)} rows, got {list(self.values.shape)}")

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole table."""
        return (self.shard.total, *self.values.shape[1:])


@dataclass(frozen=True)
class Rows:
    """Rows [start, stop) of a table, and the file they lie in."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class StoredTable:
    """A table [N, ...] in the files of a checkpoint, read when rows are asked for.

    Attributes:
        name: in the files.
        dtype: of its numbers.
        shape: of the whole, N first.
        stored: where the rows lie; ascending, they tile [0, N).
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    stored: tuple[Rows, ...]

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop): a view of the file where one file has them all, else a copy.

        As with other tensors of a checkpoint, pages of a view are read when they are used.
        """
        found = list(self._views(start, stop))
        if len(found) == 1:
            return found[0][1]
        values = torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
        self.read_into(values, start)
        return values

    def read_into(self, values: Tensor, start: int) -> None:
        """Fill `values` [n, ...] with rows [start, start + n); nothing more is read or kept."""
        expected, wanted = (self.dtype, self.shape[1:]), (values.dtype, tuple(values.shape[1:]))
        if wanted != expected:
            raise CheckpointError(
                f"{self.name}: the checkpoint holds rows of {_describe(*expected)}, this run needs "
                f"{_describe(*wanted)}; resume with the config of the run"
            )
        for first, view in self._views(start, start + len(values)):
            values[first - start : first - start + len(view)].copy_(view)

    def parts(self) -> Iterator[Tensor]:
        """All rows in their order, file by file."""
        return (view for _, view in self._views(0, self.shape[0]))

    def _views(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """First row, and rows [n, ...] as a view of a file, of what makes [start, stop)."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise CheckpointError(
                f"{self.name}: rows {start} to {stop} are wanted, the checkpoint holds "
                f"{self.shape[0]}"
            )
        for number, offset, count in _plan(self, start, stop):
            rows = self.stored[number]
            with safe_open(rows.path, "pt") as file:
                view: Tensor = file.get_tensor(self.name)
            yield rows.start + offset, view[offset : offset + count]


def local_rows(stored: "Tensor | StoredTable", like: RowShard) -> Tensor:
    """The rows of `like.shard` out of a loaded tensor or table of `shard.total` rows.

    Of a tensor a view. Of a table they are read into `like.values`, which are given back: so rows
    that come from many files are never in memory twice.
    """
    if tuple(stored.shape) != like.shape:
        raise CheckpointError(
            f"the checkpoint holds a table {list(stored.shape)}, this run needs "
            f"{list(like.shape)}; resume with the config and the data of the run"
        )
    if isinstance(stored, Tensor):
        return stored[like.shard.start : like.shard.stop]
    stored.read_into(like.values, like.shard.start)
    return like.values


def _plan(table: StoredTable, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(number in `table.stored`, first row in that file, count) of what makes [start, stop)."""
    for number, rows in enumerate(table.stored):
        first, last = max(start, rows.start), min(stop, rows.stop)
        if first < last:
            yield number, first - rows.start, last - first


def _describe(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{list(shape)} {str(dtype).removeprefix('torch.')}"

"""Products of two sets of unit embeddings, block by block, and the few scores that are wanted.

A block is [rows, columns] of float32 cosines, made by one matrix product and looked at while it is
in the cache. Almost nothing in it is wanted, so it is filtered by the maxima of its rows, which
costs about a hundredth of the product at D = 512.

"Exact" means: every pair is scored once, as float32, and the scores wanted are those of all pairs
that were scored. The scores themselves carry the rounding of a float32 product (about 1e-7), and
which way it goes can depend on the block a pair lies in, as with any matrix product.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import DataError, NonFiniteError

Float32Array = npt.NDArray[np.float32]
Unit = npt.NDArray[np.floating]
Progress = Callable[[int, int], None]

ROWS, COLUMNS = 2048, 4096  # never more rows than columns: a block holds its part of a diagonal


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""


def unit_rows(
    embeddings: npt.NDArray[np.floating], name: str, dtype: npt.DTypeLike = np.float32
) -> Unit:
    """A copy of `embeddings` [N, D] scaled to unit length.

    Raises:
        DataError: it is no matrix, or a row has length 0.
        NonFiniteError: a row is not finite.
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise DataError(
            f"{name}: expected embeddings as floats [N, D], got {embeddings.dtype} of shape "
            f"{embeddings.shape}"
        )
    rows: Unit = np.array(embeddings, dtype=dtype, order="C")
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        lengths = np.linalg.norm(part, axis=1, keepdims=True)
        _check_lengths(lengths[:, 0], start, name)
        part /= lengths
    return rows


def _check_lengths(lengths: Unit, start: int, name: str) -> None:
    if not np.isfinite(lengths).all():
        row = start + int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise NonFiniteError(f"{name}: embedding {row} is not finite; embed the images anew")
    if not lengths.all():
        row = start + int(np.flatnonzero(lengths == 0)[0])
        raise DataError(f"{name}: embedding {row} has length 0, which has no cosine; leave it out")


class TopScores:
    """The `capacity` highest of all scores shown, with the row and column of each.

    Ever fewer scores pass the lowest that is kept, so what is kept is sorted out seldom.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._limit = -np.inf  # what a score must exceed to be kept
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._held = 0

    def add(self, block: Tensor, row: int, column: int) -> None:
        """Show a block whose first score is that of (`row`, `column`); -inf is never kept."""
        rows = torch.nonzero(block.amax(dim=1) > self._limit)[:, 0]
        if not len(rows) or not self.capacity:
            return
        # Many rows pass at the start only; then the block is looked at in parts, to bound memory.
        at_once = max(1, (1 << 22) // block.shape[1])
        for start in range(0, len(rows), at_once):
            self._take(block, rows[start : start + at_once], row, column)

    def _take(self, block: Tensor, rows: Tensor, row: int, column: int) -> None:
        near = block if len(rows) == len(block) else block[rows]
        places = torch.nonzero(near > self._limit)
        values = near[places[:, 0], places[:, 1]]
        which = (rows[places[:, 0]] + row).int(), (places[:, 1] + column).int()
        self._parts.append((values, *which))
        self._held += len(values)
        if self._held >= 2 * self.capacity + (1 << 20):
            self._keep_highest()

    def _keep_highest(self) -> None:
        values, rows, columns = (torch.cat(each) for each in zip(*self._parts, strict=True))
        if len(values) > self.capacity:
            values, kept = torch.topk(values, self.capacity, sorted=False)
            rows, columns = rows[kept], columns[kept]
            self._limit = float(values.min())
        self._parts, self._held = [(values, rows, columns)], len(values)

    def falling(
        self,
    ) -> tuple[Unit, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Scores, rows and columns, highest first."""
        if not self._parts:
            return np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32)
        self._keep_highest()
        values, rows, columns = self._parts[0]
        order = torch.argsort(values, descending=True, stable=True)
        scores, left, right = (each[order].cpu().numpy() for each in (values, rows, columns))
        return scores, left, right


class RowTops:
    """The `count` highest scores of every row, [rows, count], falling; -inf where fewer."""

    def __init__(self, num_rows: int, count: int, like: Tensor) -> None:
        self.scores = like.new_full((num_rows, count), -torch.inf)

    def add(self, block: Tensor, row: int) -> None:
        """Show a block of the rows from `row` on."""
        mine = self.scores[row : row + len(block)]  # a view
        better = torch.nonzero(block.amax(dim=1) > mine[:, -1])[:, 0]
        if len(better):
            both = torch.cat([mine[better], block[better]], dim=1)
            mine[better] = torch.topk(both, mine.shape[1], dim=1).values

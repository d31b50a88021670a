"""Products of two sets of unit embeddings, block by block, and the few scores that are wanted.

A block is [rows, columns] of float32 cosines, made by one matrix product and looked at while it is
in the cache. Almost nothing in it is wanted, so it is filtered by maxima of runs of scores,
which costs about a fiftieth of the product at D = 512.

"Exact" means: every pair is scored once, as float32, and the scores wanted are those of all pairs
that were scored. The scores themselves carry the rounding of a float32 product (about 1e-7), and
which way it goes can depend on the block a pair lies in, as with any matrix product.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import DataError, NonFiniteError

Float32Array = npt.NDArray[np.float32]
Unit = npt.NDArray[np.floating]

_RUN = 64  # neighbouring scores of a row whose maximum is looked at
_AT_ONCE = 1 << 20  # scores that may all be wanted
ROWS, COLUMNS = 2048, 4096  # never more rows than columns: a block holds its part of a diagonal


def unit_rows(
    embeddings: npt.NDArray[np.floating],
    name: str,
    *,
    order: npt.NDArray[np.integer] | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> Unit:
    """A copy of `embeddings` [N, D] scaled to unit length, in the order of `order` if given.

    Raises:
        DataError: it is no matrix, or a row has length 0.
        NonFiniteError: a row is not finite.
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise DataError(
            f"{name}: expected embeddings as floats [N, D], got {embeddings.dtype} of shape "
            f"{embeddings.shape}"
        )
    rows: Unit = np.empty(embeddings.shape, dtype=dtype)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        rows[part] = embeddings[part if order is None else order[part]]
        lengths = np.linalg.norm(rows[part], axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            _say_what_is_wrong(lengths[:, 0], start, order, name)
        rows[part] /= lengths
    return rows


def _say_what_is_wrong(
    lengths: Unit, start: int, order: npt.NDArray[np.integer] | None, name: str
) -> None:
    place = start + int(np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))[0])
    row = place if order is None else int(order[place])
    if lengths[place - start] == 0:
        raise DataError(f"{name}: embedding {row} has length 0, which has no cosine; leave it out")
    raise NonFiniteError(f"{name}: embedding {row} is not finite; embed the images anew")


class TopScores:
    """The `capacity` highest of all scores shown, with the row and column of each.

    A score that passes the lowest one kept goes into a buffer of 12 bytes a place; when it is full,
    the highest are kept, and the lowest of them is what must be passed from then on. Ever fewer do.
    """

    def __init__(
        self,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.capacity = capacity
        self._limit = -np.inf  # what a score must exceed to be kept
        places = 2 * capacity + _AT_ONCE if capacity else 0
        self._scores = torch.empty(places, dtype=dtype, device=device)
        self._rows, self._columns = torch.empty(2, places, dtype=torch.int32, device=device)
        self._held = 0

    def add(self, block: Tensor, row: int, column: int) -> None:
        """Show a block whose first score is that of (`row`, `column`); -inf is never kept."""
        if not self.capacity:
            return
        whole = block.shape[1] // _RUN * _RUN
        if whole:
            self._add_runs(block[:, :whole].view(len(block), -1, _RUN), row, column)
        if whole < block.shape[1]:
            self._add_runs(block[:, whole:].unsqueeze(1), row, column + whole)

    def _add_runs(self, runs: Tensor, row: int, column: int) -> None:
        """Few runs hold anything that is wanted, but for the first blocks: they are cut, too."""
        near = torch.nonzero(runs.amax(dim=2) > self._limit)  # [near, 2]
        at_once = _AT_ONCE // runs.shape[2]
        for start in range(0, len(near), at_once):
            self._take(runs, near[start : start + at_once], row, column)

    def _take(self, runs: Tensor, near: Tensor, row: int, column: int) -> None:
        values = runs[near[:, 0], near[:, 1]]  # [near, length of a run]
        which, place = torch.nonzero(values > self._limit, as_tuple=True)
        end = self._held + len(which)
        self._scores[self._held : end] = values[which, place]
        self._rows[self._held : end] = near[which, 0] + row
        self._columns[self._held : end] = near[which, 1] * runs.shape[2] + place + column
        self._held = end
        if end > 2 * self.capacity:  # the next part may fill what is left
            self._keep_highest()

    def _keep_highest(self) -> None:
        if self._held <= self.capacity:
            return
        scores, kept = torch.topk(self._scores[: self._held], self.capacity, sorted=False)
        rows, columns = self._rows[kept], self._columns[kept]
        self._limit, self._held = float(scores.min()), self.capacity
        self._scores[: self._held] = scores
        self._rows[: self._held], self._columns[: self._held] = rows, columns

    def falling(self) -> tuple[Unit, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Scores, rows and columns, highest first."""
        self._keep_highest()
        order = torch.argsort(self._scores[: self._held], descending=True, stable=True)
        found = (each[order].cpu().numpy() for each in (self._scores, self._rows, self._columns))
        scores, rows, columns = found
        return scores, rows, columns


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

"""What a head remembers between `backward` and `step`, and row gradients made real."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manyface.base.numeric import working_dtype
from manyface.centers import ActiveRows
from manyface.softmax.streamed import Residual, row_gradients


@dataclass(frozen=True)
class RowGradients:
    """Gradients `values` [K, D] of the rows `ids` int64 [K] (distinct; None: all rows)."""

    ids: Tensor | None
    values: Tensor

    def merge(self, other: "RowGradients") -> "RowGradients":
        """The sum of both; may take the memory of either, so use neither afterwards."""
        if self.ids is None:
            return self._add_in_place(other)
        if other.ids is None:
            return other._add_in_place(self)
        ids, places = torch.unique(torch.cat([self.ids, other.ids]), return_inverse=True)
        values = self.values.new_zeros(ids.shape[0], self.values.shape[1])
        values.index_add_(0, places, torch.cat([self.values, other.values]))
        return RowGradients(ids, values)

    def _add_in_place(self, other: "RowGradients") -> "RowGradients":
        if other.ids is None:
            self.values.add_(other.values)
        else:
            self.values.index_add_(0, other.ids, other.values)
        return self


class ForwardPass:
    """The part of a forward pass that row gradients are made from: O(B D) bytes, and numerators
    that are kept until they are used.

    It holds only for the centers it was computed from: once they have moved, using it is an error.
    """

    def __init__(self, rows: ActiveRows, residual: Residual | None) -> None:
        """`residual` None is an empty batch: no row moves."""
        self.rows = rows
        self._residual = residual
        self._weight: Tensor | None = rows.table.weight
        self._version = rows.table.version

    def check_fresh(self) -> None:
        """Raise if the centers are not those of the forward pass any more."""
        table = self.rows.table
        if table.weight is not self._weight or table.version != self._version:
            raise RuntimeError(
                "the class centers have changed since this loss was computed (a head.step or a "
                "load came in between): call backward before step, and drop losses from before it"
            )

    def drop(self) -> None:
        """Free all of it, for losses that outlive their step; using it is an error from now on."""
        self.rows = ActiveRows(self.rows.table, None)
        self._residual = self._weight = None

    def chunks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, row gradient [n, D]) of every chunk, for a loss of factor 1."""
        self.check_fresh()
        if self._residual is not None:
            yield from row_gradients(self._residual, self.rows)
            self._residual = replace(self._residual, kept=None)


@dataclass
class Backward:
    """A forward pass that has been through `backward`; `upstream` is the factor of its loss."""

    forward: ForwardPass
    upstream: Tensor

    def gradients(self) -> RowGradients:
        """All row gradients at once, [K, D]."""
        rows = self.forward.rows
        weight = rows.table.weight
        working = working_dtype(weight.dtype)
        values = torch.empty(len(rows), weight.shape[1], dtype=working, device=rows.table.device)
        for start, stop, chunk in self.forward.chunks():
            torch.mul(chunk, self.upstream, out=values[start:stop])
        return RowGradients(rows.ids, values)

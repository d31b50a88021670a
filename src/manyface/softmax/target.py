"""A sample's own class: its row; its logit and how that moves, by autograd on B numbers.

Of several ranks each has the rows of some classes, and says what there is to say of the samples of
these: b of B.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.margins import Margin, TrainsNorm
from manyface.softmax.rows import Rows
from manyface.softmax.sub_centers import nearest_own, rows_of_classes


@dataclass(frozen=True)
class Targets:
    """Each sample's own row, sorted by row so that a chunk finds its targets without a search.

    Attributes:
        row: int64 [B] in sample order.
        order: int64 [B], samples sorted by row.
        sorted_row: int64 [B], `row[order]`.
        bounds: chunk i's samples are `order[bounds[i]:bounds[i + 1]]`.
        chunk_size: rows per chunk.
    """

    row: Tensor
    order: Tensor
    sorted_row: Tensor
    bounds: list[int]
    chunk_size: int

    @staticmethod
    def sort(row: Tensor, *, num_rows: int, chunk_size: int) -> "Targets":
        """Sort the targets and cut them at the chunk borders (one host sync for all chunks)."""
        sorted_row, order = torch.sort(row, stable=True)
        borders = torch.arange(0, num_rows + chunk_size, chunk_size, device=row.device)
        bounds = torch.searchsorted(sorted_row, borders).tolist()
        return Targets(row, order, sorted_row, bounds, chunk_size)

    def of_chunk(self, start: int) -> tuple[Tensor, Tensor]:
        """Samples whose own row is in the chunk at `start`, and that row's place in the chunk."""
        index = start // self.chunk_size
        inside = slice(self.bounds[index], self.bounds[index + 1])
        return self.order[inside], self.sorted_row[inside] - start


@dataclass(frozen=True)
class OwnRows:
    """The samples whose own class is here, and its row; the nearest one with sub-centers.

    Attributes:
        samples: int64 [b].
        row: int64 [B], place of every sample's row, -1 where it is not here.
        unit: the rows at length 1, [b, D].
        cosine: with them, [b].
    """

    samples: Tensor
    row: Tensor
    unit: Tensor
    cosine: Tensor

    def of_batch(self, values: Tensor) -> Tensor:
        """`values` [b, ...] of these samples as [B, ...], 0 for the others."""
        found = values.new_zeros(len(self.row), *values.shape[1:])
        return found.index_copy_(0, self.samples, values)

    def add_(self, values: Tensor, more: Tensor, factor: float) -> None:
        """Add factor * `more` [b, D] to these samples of `values` [B, D]."""
        values.index_add_(0, self.samples, more, alpha=factor)


def own_rows(unit: Tensor, rows: Rows, targets: Tensor, *, sub_centers: int) -> OwnRows:
    """Of samples x^ [B, D] with classes `targets` int64 [B], -1 where `rows` has them not."""
    samples = (targets >= 0).nonzero().squeeze(1)
    own = targets[samples]
    stored = rows.take(rows_of_classes(own, sub_centers))  # [b S, D]
    places, own_unit, cosine = nearest_own(unit[samples], stored, own, sub_centers=sub_centers)
    row = torch.full_like(targets, -1).index_copy_(0, samples, places)
    return OwnRows(samples, row, own_unit, cosine)


@dataclass(frozen=True)
class OwnLogit:
    """The logit of each sample's own class, before the scale.

    Attributes:
        logit: psi, [b, 1].
        slope: psi', [b, 1].
        length_slope: d psi / d a, [b, 1], of a margin that trains lengths a, else None.
    """

    logit: Tensor
    slope: Tensor
    length_slope: Tensor | None


def own_logit(cosine: Tensor, norms: Tensor, margin: Margin) -> OwnLogit:
    """psi and its slopes for target cosines [b] and lengths of embeddings [b]."""
    trains = isinstance(margin, TrainsNorm)
    with torch.inference_mode(False), torch.enable_grad():
        cosine = cosine.clone().requires_grad_()
        norms = norms.clone().requires_grad_(trains)
        logit = margin(cosine, norms)
        (slope,) = torch.autograd.grad(logit.sum(), cosine, retain_graph=trains)
        length_slope = _slope(logit, norms) if trains else None
    return OwnLogit(logit.detach()[:, None], slope[:, None], length_slope)


@dataclass(frozen=True)
class Penalty:
    """What each sample's length a adds to its loss, `values`, and d values / d a, [B, 1] each."""

    values: Tensor
    slope: Tensor


def penalty_of(margin: Margin, norms: Tensor) -> Penalty | None:
    """For lengths [B]; None if the margin has none."""
    if not isinstance(margin, TrainsNorm):
        return None
    with torch.inference_mode(False), torch.enable_grad():
        norms = norms.clone().requires_grad_()
        values = margin.penalty(norms)
        slope = _slope(values, norms)
    return Penalty(values.detach()[:, None], slope)


def _slope(values: Tensor, norms: Tensor) -> Tensor:
    """d values / d norms, [n, 1]: a margin may read no length, a penalty may be constant."""
    if not values.requires_grad:
        return torch.zeros_like(norms)[:, None]
    (slope,) = torch.autograd.grad(values.sum(), norms, allow_unused=True, materialize_grads=True)
    return slope[:, None]

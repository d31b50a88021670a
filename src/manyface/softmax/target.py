"""A sample's own class: its row; its logit and how that moves, by autograd on B numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.margins import Margin, TrainsNorm


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
class Lengths:
    """What a margin says of the lengths a that it trains.

    Attributes:
        slope: d psi / d a, [B, 1].
        penalty: what is added to a sample's loss, [B, 1].
        penalty_slope: d penalty / d a, [B, 1].
    """

    slope: Tensor
    penalty: Tensor
    penalty_slope: Tensor


@dataclass(frozen=True)
class OwnLogit:
    """The logit of each sample's own class, before the scale.

    Attributes:
        logit: psi, [B, 1].
        slope: psi', [B, 1].
        lengths: of a margin that trains them, else None.
    """

    logit: Tensor
    slope: Tensor
    lengths: Lengths | None


def own_logit(cosine: Tensor, norms: Tensor, margin: Margin) -> OwnLogit:
    """psi and its slopes for target cosines [B] and lengths of embeddings [B]."""
    trained = margin if isinstance(margin, TrainsNorm) else None
    with torch.inference_mode(False), torch.enable_grad():
        cosine = cosine.clone().requires_grad_()
        norms = norms.clone().requires_grad_(trained is not None)
        logit = margin(cosine, norms)
        (slope,) = torch.autograd.grad(logit.sum(), cosine, retain_graph=trained is not None)
        lengths = None if trained is None else _lengths(trained, logit, norms)
    return OwnLogit(logit.detach()[:, None], slope[:, None], lengths)


def _lengths(margin: TrainsNorm, logit: Tensor, norms: Tensor) -> Lengths:
    penalty = margin.penalty(norms)  # [B]
    slope, penalty_slope = (
        # A margin may read no length, a penalty may be constant: then nothing flows.
        torch.autograd.grad(each.sum(), norms, allow_unused=True, materialize_grads=True)[0]
        if each.requires_grad
        else torch.zeros_like(norms)
        for each in (logit, penalty)
    )
    return Lengths(slope[:, None], penalty.detach()[:, None], penalty_slope[:, None])

r"""Margin softmax over chunks of classes: exact, and never a B x K matrix in memory.

Legend. B batch, D dim, K active rows (class centers); x embedding, w row, hats are unit length;
c_ij = x^_i . w^_j, y_i the sample's own row; psi the margin, psi' its slope; s scale,
a = s log2(e).

1. *No maximum.* Cosines are bounded by 1, so for the usual scales E_ij = exp(s c_ij) = 2^(a c_ij)
   neither overflows nor vanishes in fp32 and the usual running maximum with its rescaling is not
   needed (`needs_shift` tells when it is). a is folded into x^ once; exp2 is cheaper than exp.
2. *The target is masked, never subtracted.* N_i = sum_{j != y} E_ij is summed with the target set
   to -inf; Z_i = N_i + exp(s psi(c_iy)). (Z - E_iy would lose all of N at c_iy >= 0.7.) The target
   cosine is a row-wise dot product in the table's full precision.
3. *Rows are read as they are stored.* A chunk's products are taken with w, and |w|^-1 is applied to
   B x n numbers instead of n x D: E^_ij = E_ij / |w_j| stands in both products of stages 4 and 5.
4. *Loss.* L_i = ln Z_i - s psi(c_iy), averaged over B.
5. *Gradient of the embedding*, complete after the forward pass because O_i = sum_{j != y} E_ij w^_j
   is summed alongside (a flash attention with keys and values w^):
       dL/dx^_i = s/B [ O_i / Z_i - (N_i / Z_i) psi'_i w^_y ]        (p_iy - 1 = -N_i / Z_i)
   and its tangent part over |x| is the gradient of x.
6. *Gradient of the rows*, chunk by chunk, with E computed again (4 matrix products in all, memory
   O(B D + chunk)), or kept where the caller has B K numbers to spare (3 products):
       dL/dw^_j = s/B [ sum_i E_ij x^_i / Z_i - sum_{i: y_i = j} (N_i / Z_i) psi'_i x^_i ]
   and its tangent part over |w|. A chunk's gradient is final when it is computed, so a head may
   update the chunk's rows at once and no K x D gradient ever exists.

*Precision.* With operands in float32 or float64 everything is in that dtype. With operands in
bfloat16 (rows stored so, or asked for) both factors of the products are rounded to 8 bits, their
sums are in float32 within a chunk of the sum; lengths, 2^., all sums over chunks, loss and the
whole target path (the largest gradients: cosine, margin, slope, pull) are in float32.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from manyface.base.numeric import (
    inverse_lengths,
    tangent_gradient,
    unit_rows,
    working_dtype,
)
from manyface.margins import Margin
from manyface.softmax.products import product

# At B = D = 512 on two cores nothing between 512 and 8192 was faster (results/head_step.json).
DEFAULT_CHUNK_SIZE = 2048
# Numerators are kept for the row gradients up to this many bytes: 3 matrix products, not 4.
DEFAULT_KEPT_BYTES = 128 * 2**20
# Rows shorter than this are brought to length 1 first, lest E / |w| leave the range of float32.
_SHORTEST = 1e-4


class Rows(Protocol):
    """Active rows that can be read a chunk at a time."""

    def __len__(self) -> int:
        """Number of active rows K."""

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as [stop - start, D]: a view or a copy, not to be written."""

    def take(self, places: Tensor) -> Tensor:
        """Copies [N, D] of the rows at `places`, int64 [N]."""


class TensorRows:
    """Rows that lie in one tensor [K, D]."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def read(self, start: int, stop: int) -> Tensor:
        """A view."""
        return self.tensor[start:stop]

    def take(self, places: Tensor) -> Tensor:
        """A copy."""
        return self.tensor[places]


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
class Numerators:
    """A chunk of classes as stages 5 and 6 need it.

    Attributes:
        start: first row.
        stop: one past the last.
        values: E^ [B, n], targets 0, in the dtype of the operands.
        inverse: 1 / |w|, [n, 1].
        stretch: [n, 1] or None; factor by which rows were lengthened before all this.
    """

    start: int
    stop: int
    values: Tensor
    inverse: Tensor
    stretch: Tensor | None


@dataclass(frozen=True)
class Residual:
    """What the row gradients need of a forward pass: O(B D) bytes, and the numerators if kept.

    Attributes:
        unit_embeddings: x^ [B, D].
        row_weight: s / (B Z_i), [B, 1].
        target_pull: s / B (N_i / Z_i) psi'_i, [B, 1].
        shift: base-2 exponent subtracted from every logit of a sample [B, 1], or None.
        targets: own rows.
        scale: s.
        operands: dtype of the factors of the products.
        kept: the numerators of all chunks, or None: they are computed again.
    """

    unit_embeddings: Tensor
    row_weight: Tensor
    target_pull: Tensor
    shift: Tensor | None
    targets: Targets
    scale: float
    operands: torch.dtype
    kept: list[Numerators] | None = None


@dataclass(frozen=True)
class StreamedLoss:
    """Result of a forward pass.

    Attributes:
        loss: mean loss, scalar.
        embedding_gradient: d loss / d embeddings [B, D].
        residual: for `row_gradients`.
    """

    loss: Tensor
    embedding_gradient: Tensor
    residual: Residual


def needs_shift(scale: float, *, num_rows: int, dtype: torch.dtype) -> bool:
    """Whether exp(scale) * num_rows, or scale / exp(-scale), leaves the range of `dtype`."""
    limits = torch.finfo(dtype)
    largest = scale + math.log(max(num_rows, scale, 1.0))
    return largest > min(math.log(limits.max), -math.log(limits.tiny))


def chunk_borders(num_rows: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each chunk."""
    for start in range(0, num_rows, chunk_size):
        yield start, min(start + chunk_size, num_rows)


def streamed_forward(
    embeddings: Tensor,
    rows: Rows,
    targets: Tensor,
    *,
    margin: Margin,
    scale: float,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    operands: torch.dtype | None = None,
    kept_bytes: int = 0,
) -> StreamedLoss:
    """Loss and finished embedding gradient of a batch; stages 1 to 5 of the derivation above.

    Args:
        embeddings: [B, D], B >= 1, float32 or float64 (`working_dtype` of the rows); not
            differentiated.
        rows: K active rows.
        targets: int64 [B] in [0, K).
        margin: target cosine -> target logit.
        scale: s.
        chunk_size: rows per chunk.
        operands: dtype of the factors of the products; None is that of the rows.
        kept_bytes: numerators are kept for `row_gradients` if they take no more.
    """
    unit, inverse = unit_rows(embeddings)  # [B, D], [B, 1]
    own = Targets.sort(targets, num_rows=len(rows), chunk_size=chunk_size)
    own_rows = rows.take(targets)  # [B, D]
    operands = operands or own_rows.dtype
    own_unit, _ = unit_rows(own_rows.to(unit.dtype))
    target_logit, slope = _target_path(unit, own_unit, inverse, margin)  # [B, 1] each
    shift = None
    if needs_shift(scale, num_rows=len(rows), dtype=unit.dtype):
        shift = _largest_logit(unit, rows, own, target_logit, operands) * (
            scale * math.log2(math.e)
        )
    nothing = unit.new_empty(0)
    residual = Residual(unit, nothing, nothing, shift, own, scale, operands)
    keeps = unit.shape[0] * len(rows) * operands.itemsize <= kept_bytes
    negatives, pull, kept = _sum_negatives(residual, rows, keeps=keeps)  # [B, 1], [B, D]
    own_exponent = target_logit * (scale * math.log2(math.e))
    if shift is not None:
        own_exponent = own_exponent - shift
    # L = ln(1 + N / exp(s psi)): exact for tiny losses, and for a single class, where N is 0.
    losses = torch.logaddexp(
        (torch.log2(negatives) - own_exponent) * math.log(2.0), negatives.new_zeros(1)
    )  # [B, 1]
    # Not by way of the logarithm above, which would cost |s psi| roundings.
    row_weight = (scale / embeddings.shape[0]) / (negatives + torch.exp2(own_exponent))  # [B, 1]
    row_weight.clamp_max_(torch.finfo(unit.dtype).max)  # N = 0: nothing to weigh, but no inf * 0
    target_pull = row_weight * negatives * slope  # [B, 1]
    gradient = pull.mul_(row_weight).addcmul_(target_pull, own_unit, value=-1.0)  # [B, D]
    residual = replace(residual, row_weight=row_weight, target_pull=target_pull, kept=kept)
    return StreamedLoss(losses.mean(), tangent_gradient(gradient, unit, inverse), residual)


def row_gradients(residual: Residual, rows: Rows) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, d loss / d rows[start:stop]) of every chunk; stage 6.

    The yielded [stop - start, D] tensor belongs to the caller until the next chunk is asked for. A
    chunk is read before it is yielded, so its rows may be overwritten in between.
    """
    weighted = (residual.unit_embeddings * residual.row_weight).to(residual.operands)  # [B, D]
    pulled = residual.unit_embeddings * residual.target_pull  # [B, D]
    for chunk in residual.kept or _again(residual, rows):
        gradient = product(chunk.values.T, weighted)  # [n, D]
        samples, places = residual.targets.of_chunk(chunk.start)
        gradient.index_add_(0, places, pulled[samples] * chunk.inverse[places], alpha=-1.0)
        read = _stretched(rows.read(chunk.start, chunk.stop).to(gradient.dtype), chunk.stretch)
        gradient = _remove_radial(gradient, read, chunk.inverse)
        yield chunk.start, chunk.stop, _stretched(gradient, chunk.stretch)


def _remove_radial(gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """The tangent part of `gradient` [n, D], in place: g - (g . w) w / |w|^2."""
    radial = (gradient * rows).sum(dim=1, keepdim=True) * inverse.square()  # [n, 1]
    return gradient.addcmul_(radial, rows, value=-1.0)


def _target_path(
    unit: Tensor, own_unit: Tensor, inverse: Tensor, margin: Margin
) -> tuple[Tensor, Tensor]:
    """psi(c_iy) and psi'(c_iy), [B, 1] each, the slope by autograd through the margin."""
    norms = torch.where(inverse > 0, 1.0 / inverse, 0.0).squeeze(1)  # [B]
    cosine = (unit * own_unit).sum(dim=1)  # [B]
    with torch.inference_mode(False), torch.enable_grad():
        cosine, norms = cosine.clone().requires_grad_(), norms.clone()
        logit = margin(cosine, norms)
        (slope,) = torch.autograd.grad(logit.sum(), cosine)
    return logit.detach()[:, None], slope[:, None]


def _sum_negatives(
    residual: Residual, rows: Rows, *, keeps: bool
) -> tuple[Tensor, Tensor, list[Numerators] | None]:
    """N_i [B, 1], O_i [B, D] over all chunks, and the numerators if they are to be kept."""
    unit = residual.unit_embeddings
    negatives, pull = unit.new_zeros(unit.shape[0], 1), torch.zeros_like(unit)
    kept: list[Numerators] = []
    for operand, numerators, chunk in _chunks(residual, rows):
        negatives += numerators.sum(dim=1, keepdim=True)
        chunk = _divided(numerators, chunk, residual.operands)
        pull += product(chunk.values, operand)
        if keeps:
            kept.append(chunk)
    return negatives, pull, kept if keeps else None


def _again(residual: Residual, rows: Rows) -> Iterator[Numerators]:
    """The numerators of all chunks, not kept but computed again."""
    for _, numerators, chunk in _chunks(residual, rows):
        yield _divided(numerators, chunk, residual.operands)


def _chunks(residual: Residual, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Numerators]]:
    """(w as an operand [n, D], E [B, n] with targets 0, the rest without values) of each chunk."""
    scale = residual.scale * math.log2(math.e)
    queries = (residual.unit_embeddings * scale).to(residual.operands)  # [B, D]
    for start, stop in chunk_borders(len(rows), residual.targets.chunk_size):
        operand, inverse, stretch = _as_operand(rows.read(start, stop), residual.operands)
        exponents = product(queries, operand.T).mul_(inverse.T)  # [B, n]
        if residual.shift is not None:
            exponents -= residual.shift
        exponents.index_put_(residual.targets.of_chunk(start), exponents.new_tensor(-math.inf))
        yield operand, exponents.exp2_(), Numerators(start, stop, exponents, inverse, stretch)


def _divided(numerators: Tensor, chunk: Numerators, operands: torch.dtype) -> Numerators:
    """E^ = E / |w| as operands of the products; `numerators` is overwritten."""
    return replace(chunk, values=numerators.mul_(chunk.inverse.T).to(operands))


def _as_operand(rows: Tensor, operands: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows [n, D] as a factor of products, their 1 / |w| [n, 1], the stretch of short ones."""
    values = rows.to(working_dtype(rows.dtype))
    inverse = inverse_lengths(values)
    if not bool((inverse > 1.0 / _SHORTEST).any()):
        return rows.to(operands), inverse, None
    stretch = torch.where(inverse > 1.0 / _SHORTEST, inverse, 1.0)
    return (values * stretch).to(operands), inverse / stretch, stretch


def _stretched(values: Tensor, stretch: Tensor | None) -> Tensor:
    return values if stretch is None else values * stretch


def _largest_logit(
    unit: Tensor, rows: Rows, own: Targets, target_logit: Tensor, operands: torch.dtype
) -> Tensor:
    """Each sample's largest logit over s, [B, 1]: one more pass, for unusual scales only."""
    largest = target_logit
    for start, stop in chunk_borders(len(rows), own.chunk_size):
        operand, inverse, _ = _as_operand(rows.read(start, stop), operands)
        cosines = product(unit.to(operands), operand.T).mul_(inverse.T)  # [B, n]
        cosines.index_put_(own.of_chunk(start), cosines.new_tensor(-math.inf))
        largest = torch.maximum(largest, cosines.amax(dim=1, keepdim=True))
    return largest

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
7. *A rule for the negatives* makes s g_ij of s c_ij, with slope g'_ij = dg/dc and -inf where j
   takes no part for i. x^ is not multiplied by a then, since rules want cosines, and psi is kept
   for the row gradients, since rules want it. E_ij = exp(s g_ij), and every product has E_ij g'_ij
   where it had E_ij: O_i = sum E_ij g'_ij w^_j. Logits are bounded by s times the rule's bound.
8. *Label smoothing* by eps takes -eps / K_i ln p_ij over the K_i classes that take part. With sums
   over negatives that do, G_i = sum g_ij and P_i = sum g'_ij w^_j, the target's logit in stage 4
   loses weight and the others gain it:
       L_i = ln Z_i - s psi_i + eps s / K_i [ (K_i - 1) psi_i - G_i ]
       pull_i = N_i / Z_i - eps (K_i - 1) / K_i         wherever stages 5 and 6 have N_i / Z_i
       dL/dx^_i    gains  -s/B (eps / K_i) P_i
       dL/dw^_j    gains  -s/B sum_i (eps / K_i) g'_ij x^_i, over samples i for which j takes part.
   Without a rule g' = 1 and all take part. With W = sum_j w^_j, P_i = W - w^_y, G_i = x^_i . P_i,
   and each row gains the same vector, own samples added back. No product is needed.
9. *A margin that trains lengths* a = |x| is psi(c, a), with a penalty(a) in the loss:
       dL/dx_i     gains  1/B [ -s pull_i d psi / d a + d penalty / d a ] x^_i,
   the part of the gradient that is not tangent.

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
from manyface.kernels import choose
from manyface.margins import Margin, NegativeRule, frozen, let_observe
from manyface.margins.checks import check_label_smoothing
from manyface.softmax.products import product
from manyface.softmax.smoothing import EvenSums
from manyface.softmax.target import OwnLogit, own_logit

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
        values: E^ g' [B, n], targets 0, in the dtype of the operands.
        inverse: 1 / |w|, [n, 1].
        stretch: [n, 1] or None; factor by which rows were lengthened before all this.
        even: g' / |w| [B, n], 0 where one takes no part, in the dtype of the operands; with a rule
            and label smoothing, else None.
    """

    start: int
    stop: int
    values: Tensor
    inverse: Tensor
    stretch: Tensor | None
    even: Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """A chunk's cosines after the rule: g, -inf at targets, and g', 0 where g is -inf; [B, n]."""

    logits: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class Residual:
    """What the row gradients need of a forward pass: O(B D) bytes, and the numerators if kept.

    Attributes:
        unit_embeddings: x^ [B, D].
        row_weight: s / (B Z_i), [B, 1].
        target_pull: s / B pull_i psi'_i, [B, 1].
        shift: base-2 exponent subtracted from every logit of a sample [B, 1], or None.
        targets: own rows.
        scale: s.
        operands: dtype of the factors of the products.
        target_logit: psi, [B, 1].
        rule: for the negatives, as it was in the forward pass, or None.
        smoothing: eps.
        even_weight: s eps / (B K_i), [B, 1], or None without label smoothing.
        kept: the numerators of all chunks, or None: they are computed again.
    """

    unit_embeddings: Tensor
    row_weight: Tensor
    target_pull: Tensor
    shift: Tensor | None
    targets: Targets
    scale: float
    operands: torch.dtype
    target_logit: Tensor
    rule: NegativeRule | None = None
    smoothing: float = 0.0
    even_weight: Tensor | None = None
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
    negatives: NegativeRule | None = None,
    label_smoothing: float = 0.0,
    observe: bool = False,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    operands: torch.dtype | None = None,
    kept_bytes: int = 0,
) -> StreamedLoss:
    """Loss and finished embedding gradient of a batch; all but stage 6 of the derivation above.

    Args:
        embeddings: [B, D], B >= 1, float32 or float64 (`working_dtype` of the rows); not
            differentiated.
        rows: K active rows.
        targets: int64 [B] in [0, K).
        margin: target cosine -> target logit.
        scale: s.
        negatives: cosine of a negative class -> its logit; None leaves it as it is.
        label_smoothing: eps in [0, 1).
        observe: first show the batch to the running averages of margin and rule, as in training.
        chunk_size: rows per chunk.
        operands: dtype of the factors of the products; None is that of the rows.
        kept_bytes: numerators are kept for `row_gradients` if they take no more.
    """
    check_label_smoothing(label_smoothing)
    unit, inverse = unit_rows(embeddings)  # [B, D], [B, 1]
    own_rows = rows.take(targets)  # [B, D]
    own_unit, _ = unit_rows(own_rows.to(unit.dtype))
    cosine = (unit * own_unit).sum(dim=1)  # [B]
    norms = torch.where(inverse > 0, 1.0 / inverse, 0.0).squeeze(1)  # [B]
    if observe:
        let_observe((margin, negatives), cosine, norms)
    own = own_logit(cosine, norms, margin)
    residual = Residual(
        unit_embeddings=unit,
        row_weight=unit.new_empty(0),
        target_pull=unit.new_empty(0),
        shift=None,
        targets=Targets.sort(targets, num_rows=len(rows), chunk_size=chunk_size),
        scale=scale,
        operands=operands or own_rows.dtype,
        target_logit=own.logit,
        rule=frozen(negatives),
        smoothing=label_smoothing,
    )
    bound = 1.0 if negatives is None else negatives.bound
    if needs_shift(scale * bound, num_rows=len(rows), dtype=unit.dtype):
        residual = replace(residual, shift=_largest_logit(residual, rows) * _in_base_2(scale))
    sums = _sum_negatives(residual, rows, keeps=_bytes(residual, rows) <= kept_bytes)
    if sums.even is not None and negatives is None:
        sums.even.leave_out(own_unit, unit)
    return _finish(residual, sums, own, own_unit, inverse)


@dataclass
class _Sums:
    """N_i [B, 1] and O_i [B, D] over all chunks; label smoothing's sums; the kept numerators."""

    negatives: Tensor
    pull: Tensor
    even: EvenSums | None
    kept: list[Numerators] | None


def _finish(
    residual: Residual, sums: _Sums, own: OwnLogit, own_unit: Tensor, inverse: Tensor
) -> StreamedLoss:
    """Loss and embedding gradient from what was summed over the negatives; `sums` is used up."""
    unit, scale, batch = residual.unit_embeddings, residual.scale, inverse.shape[0]
    own_exponent = own.logit * _in_base_2(scale)
    if residual.shift is not None:
        own_exponent = own_exponent - residual.shift
    # L = ln(1 + N / exp(s psi)): exact for tiny losses, and for a single class, where N is 0.
    losses = torch.logaddexp(
        (torch.log2(sums.negatives) - own_exponent) * math.log(2.0), sums.negatives.new_zeros(1)
    )  # [B, 1]
    # Not by way of the logarithm above, which would cost |s psi| roundings.
    row_weight = (scale / batch) / (sums.negatives + torch.exp2(own_exponent))  # [B, 1]
    row_weight.clamp_max_(torch.finfo(unit.dtype).max)  # N = 0: nothing to weigh, but no inf * 0
    pull, gradient = row_weight * sums.negatives, sums.pull.mul_(row_weight)  # [B, 1], [B, D]
    even_weight = None
    if sums.even is not None:
        even_weight = residual.smoothing * scale / (batch * (sums.even.count + 1.0))  # [B, 1]
        losses += even_weight * batch * (sums.even.count * own.logit - sums.even.logits)
        pull -= even_weight * sums.even.count
        gradient.addcmul_(even_weight, sums.even.pull, value=-1.0)
    target_pull = pull * own.slope  # [B, 1]
    gradient.addcmul_(target_pull, own_unit, value=-1.0)
    gradient = tangent_gradient(gradient, unit, inverse)
    if own.lengths is not None:
        losses += own.lengths.penalty
        gradient.addcmul_(own.lengths.penalty_slope / batch - pull * own.lengths.slope, unit)
    residual = replace(
        residual,
        row_weight=row_weight,
        target_pull=target_pull,
        even_weight=even_weight,
        kept=sums.kept,
    )
    return StreamedLoss(losses.mean(), gradient, residual)


def row_gradients(residual: Residual, rows: Rows) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, d loss / d rows[start:stop]) of every chunk; stage 6.

    The yielded [stop - start, D] tensor belongs to the caller until the next chunk is asked for. A
    chunk is read before it is yielded, so its rows may be overwritten in between.
    """
    weighted = (residual.unit_embeddings * residual.row_weight).to(residual.operands)  # [B, D]
    pulled = residual.unit_embeddings * residual.target_pull  # [B, D]
    even, everywhere = _even_shares(residual)  # [B, D], [D]; both None without label smoothing
    if everywhere is not None and even is not None:
        pulled = pulled - even  # own samples added back
    for chunk in residual.kept or _again(residual, rows):
        gradient = product(chunk.values.T, weighted)  # [n, D]
        if everywhere is not None:
            gradient.addcmul_(chunk.inverse, everywhere, value=-1.0)
        if chunk.even is not None and even is not None:
            gradient -= product(chunk.even.T, even.to(residual.operands))
        samples, places = residual.targets.of_chunk(chunk.start)
        gradient.index_add_(0, places, pulled[samples] * chunk.inverse[places], alpha=-1.0)
        read = _stretched(rows.read(chunk.start, chunk.stop).to(gradient.dtype), chunk.stretch)
        gradient = _remove_radial(gradient, read, chunk.inverse)
        yield chunk.start, chunk.stop, _stretched(gradient, chunk.stretch)


def _remove_radial(gradient: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
    """The tangent part of `gradient` [n, D], in place: g - (g . w) w / |w|^2."""
    radial = (gradient * rows).sum(dim=1, keepdim=True) * inverse.square()  # [n, 1]
    return gradient.addcmul_(radial, rows, value=-1.0)


def _even_shares(residual: Residual) -> tuple[Tensor | None, Tensor | None]:
    """s eps / (B K_i) x^_i [B, D], and their sum [D] if every row gets all of them."""
    if residual.even_weight is None:
        return None, None
    even = residual.unit_embeddings * residual.even_weight
    return even, even.sum(dim=0) if residual.rule is None else None


def _in_base_2(scale: float) -> float:
    """a, with 2^(a c) = e^(s c)."""
    return scale * math.log2(math.e)


def _bytes(residual: Residual, rows: Rows) -> int:
    """Of all numerators, were they kept."""
    each = 2 if residual.rule is not None and residual.smoothing > 0 else 1
    return each * len(residual.unit_embeddings) * len(rows) * residual.operands.itemsize


def _sum_negatives(residual: Residual, rows: Rows, *, keeps: bool) -> _Sums:
    """N_i, O_i, and what label smoothing sums, over all chunks."""
    unit = residual.unit_embeddings
    sums = _Sums(
        unit.new_zeros(unit.shape[0], 1),
        torch.zeros_like(unit),
        EvenSums(unit) if residual.smoothing > 0 else None,
        [] if keeps else None,
    )
    for operand, chunk, scored in _numerators(residual, rows, sums.negatives):
        sums.pull += product(chunk.values, operand)
        if sums.even is not None:
            _add_even(sums.even, operand, chunk, scored)
        if sums.kept is not None:
            sums.kept.append(chunk)
    return sums


def _add_even(even: EvenSums, operand: Tensor, chunk: Numerators, scored: Scored | None) -> None:
    if scored is None or chunk.even is None:
        even.add_everything(operand, chunk.inverse)
    else:
        even.add(scored.logits, product(chunk.even, operand))


def _again(residual: Residual, rows: Rows) -> Iterator[Numerators]:
    """The numerators of all chunks, not kept but computed again."""
    for _, chunk, _ in _numerators(residual, rows, None):
        yield chunk


def _numerators(
    residual: Residual, rows: Rows, sums: Tensor | None
) -> Iterator[tuple[Tensor, Numerators, Scored | None]]:
    """(w as an operand [n, D], its numerators, g if there is a rule) of each chunk; the row sums of
    E are added to `sums` [B, 1]."""
    by_kernel = choose(residual.unit_embeddings.device, residual.operands).uses_triton
    if residual.rule is None and by_kernel and residual.unit_embeddings.dtype == torch.float32:
        yield from _by_kernel(residual, rows, sums)
        return
    for operand, numerators, chunk, scored in _chunks(residual, rows):
        if sums is not None:
            sums += numerators.sum(dim=1, keepdim=True)
        yield operand, _divided(numerators, chunk, scored, residual), scored


def _by_kernel(
    residual: Residual, rows: Rows, sums: Tensor | None
) -> Iterator[tuple[Tensor, Numerators, None]]:
    """As `_numerators` without a rule: product and all that follows in one kernel."""
    from manyface.kernels.numerators import numerators  # needs triton

    queries = (residual.unit_embeddings * _in_base_2(residual.scale)).to(residual.operands)
    for start, stop in chunk_borders(len(rows), residual.targets.chunk_size):
        operand, inverse, stretch = _as_operand(rows.read(start, stop), residual.operands)
        own = residual.targets.row - start  # [B], places in the chunk
        values, of_chunk = numerators(queries, operand, inverse, own, residual.shift)
        if sums is not None:
            sums += of_chunk
        yield operand, Numerators(start, stop, values, inverse, stretch), None


def _chunks(
    residual: Residual, rows: Rows
) -> Iterator[tuple[Tensor, Tensor, Numerators, Scored | None]]:
    """(w as an operand [n, D], E [B, n] with targets 0, the rest without values, g if there is a
    rule) of each chunk."""
    scale = _in_base_2(residual.scale)
    for operand, exponents, chunk, scored in _logits(residual, rows, factor=scale):
        if residual.shift is not None:
            exponents -= residual.shift
        yield operand, exponents.exp2_(), chunk, scored


def _logits(
    residual: Residual, rows: Rows, *, factor: float
) -> Iterator[tuple[Tensor, Tensor, Numerators, Scored | None]]:
    """As `_chunks`, but with `factor` times the logits over s in place of E, -inf at targets."""
    folded = factor if residual.rule is None else 1.0  # a rule wants cosines
    queries = (residual.unit_embeddings * folded).to(residual.operands)  # [B, D]
    for start, stop in chunk_borders(len(rows), residual.targets.chunk_size):
        operand, inverse, stretch = _as_operand(rows.read(start, stop), residual.operands)
        logits = product(queries, operand.T).mul_(inverse.T)  # [B, n]
        scored = _score(residual, logits, start)
        if scored is not None:
            logits = scored.logits * factor
        else:
            logits.index_put_(residual.targets.of_chunk(start), logits.new_tensor(-math.inf))
        yield operand, logits, Numerators(start, stop, logits, inverse, stretch), scored


def _score(residual: Residual, cosines: Tensor, start: int) -> Scored | None:
    """What the rule makes of the chunk at `start`, cosines [B, n]; None without a rule."""
    if residual.rule is None:
        return None
    logits, slopes = residual.rule(cosines, residual.target_logit)
    own = residual.targets.of_chunk(start)
    logits = logits.index_put(own, logits.new_tensor(-math.inf))  # the rule may have kept its own
    return Scored(logits, torch.where(logits > -math.inf, slopes, 0.0))


def _divided(
    numerators: Tensor, chunk: Numerators, scored: Scored | None, residual: Residual
) -> Numerators:
    """E^ g' = E g' / |w| as operands of the products; `numerators` is overwritten."""
    values = numerators.mul_(chunk.inverse.T)
    if scored is None:
        return replace(chunk, values=values.to(residual.operands))
    even = None
    if residual.smoothing > 0:
        even = (scored.slopes * chunk.inverse.T).to(residual.operands)
    return replace(chunk, values=values.mul_(scored.slopes).to(residual.operands), even=even)


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


def _largest_logit(residual: Residual, rows: Rows) -> Tensor:
    """Each sample's largest logit over s, [B, 1]: one more pass, for unusual scales only."""
    largest = residual.target_logit
    for _, logits, _, _ in _logits(residual, rows, factor=1.0):
        largest = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
    return largest

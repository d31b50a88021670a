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
   the part of the gradient that is not tangent. Every sample has a penalty, also one whose class
   takes no part; of several ranks the first adds its slope.

10. *Sub-centers*: c_ij is the largest cosine of class j's S rows; E_ij stands at that row in the
   products of stages 5 and 6, and w^_y is the sample's nearest own row (`sub_centers`). P_i is then
   a sum over other rows for each sample, so label smoothing takes the path of a rule.

11. *Ranks* (class-parallel softmax): each has some of the rows, and all have the whole batch. N_i
   (with label smoothing K_i - 1 and G_i too) is a sum over ranks, and psi_i is known to the rank
   that has class y_i and 0 elsewhere: one all-reduce of [2, B] numbers ([4, B]), named `SUMS`,
   gives every rank Z_i, the loss, and the weights of stages 5 and 6. A rank's rows then need
   nothing more. Stage 5 is linear in O_i and w^_y, so each rank computes it of its own rows, and
   the sum of the ranks' [B, D] is the gradient; whoever calls adds up (a head by reduce-scatter).
   No row, row gradient or logit travels. A rule wants psi_i before its numerators, and so does a
   shift: it goes ahead as [B, 1], `TARGETS` (N_i then goes alone), and the largest logits by
   [B, 1], `LARGEST`; running averages want the c_iy of classes that take part: [B], `COSINES`.

The numerators of a chunk (stages 1, 3, 7) are made in `chunks`, stage 8's sums in `smoothing`.

*Precision.* With operands in float32 or float64 everything is in that dtype. With operands in
bfloat16 (rows stored so, or asked for) both factors of the products are rounded to 8 bits, their
sums are in float32 within a chunk of the sum; lengths, 2^., all sums over chunks, loss and the
whole target path (the largest gradients: cosine, margin, slope, pull) are in float32.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manyface.base.numeric import tangent_gradient, unit_rows
from manyface.kernels import tangent_part
from manyface.margins import Margin, NegativeRule, Stateful, frozen, let_observe
from manyface.margins.checks import check_label_smoothing
from manyface.parallel import ALONE, Ranks
from manyface.softmax.chunks import (
    Chunk,
    Numerators,
    Scoring,
    in_base_2,
    largest_logit,
    numerators,
    stretched,
)
from manyface.softmax.products import as_it_comes, product
from manyface.softmax.rows import Rows
from manyface.softmax.smoothing import EvenSums
from manyface.softmax.sub_centers import Unchanged, check_sub_centers
from manyface.softmax.target import (
    OwnLogit,
    OwnRows,
    Penalty,
    Targets,
    own_logit,
    own_rows,
    penalty_of,
)

# At B = 256, D = 512 on two cores 4 % faster than 2048 in bfloat16; 8192 leaves the caches.
DEFAULT_CHUNK_SIZE = 4096
# Numerators are kept for the row gradients up to this many bytes: 3 matrix products, not 4.
DEFAULT_KEPT_BYTES = 128 * 2**20
# What the all-reduces of stage 11 are called.
SUMS, TARGETS, LARGEST, COSINES = "sums", "target logits", "largest logits", "target cosines"


@dataclass(frozen=True)
class Residual:
    """What the row gradients need of a forward pass: O(B D) bytes, and the numerators if kept.

    Attributes:
        scoring: what the numerators are made from.
        row_weight: s / (B Z_i), [B, 1].
        target_pull: s / B pull_i psi'_i, [B, 1].
        even_weight: s eps / (B K_i), [B, 1], or None without label smoothing.
        kept: the numerators of all chunks, or None: they are computed again.
    """

    scoring: Scoring
    row_weight: Tensor
    target_pull: Tensor
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


def streamed_forward(
    embeddings: Tensor,
    rows: Rows,
    targets: Tensor,
    *,
    margin: Margin,
    scale: float,
    negatives: NegativeRule | None = None,
    label_smoothing: float = 0.0,
    sub_centers: int = 1,
    observe: bool = False,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    operands: torch.dtype | None = None,
    kept_bytes: int = 0,
    ranks: Ranks = ALONE,
    most_rows: int | None = None,
) -> StreamedLoss:
    """Loss and finished embedding gradient of a batch; all but stage 6 of the derivation above.

    Args:
        embeddings: [B, D], B >= 1, float32 or float64 (`working_dtype` of the rows); not
            differentiated.
        rows: K * sub_centers active rows, those of a class together; with `ranks` those of this
            rank, perhaps none.
        targets: integer [B], own classes in [0, K); -1 where another rank has the class.
        margin: target cosine -> target logit.
        scale: s.
        negatives: cosine of a negative class -> its logit; None leaves it as it is.
        label_smoothing: eps in [0, 1).
        sub_centers: rows per class.
        observe: first show the batch to the running averages of margin and rule, as in training.
        chunk_size: rows per chunk; made whole classes.
        operands: dtype of the factors of the products; None is that of the rows.
        kept_bytes: numerators are kept for `row_gradients` if they take no more.
        ranks: that share the rows; all have the same embeddings. See stage 11.
        most_rows: at least the active rows of all ranks together; None is those of this one.
    """
    check_label_smoothing(label_smoothing)
    check_sub_centers(sub_centers, num_rows=len(rows))
    unit, inverse = unit_rows(embeddings)  # [B, D], [B, 1]
    norms = torch.where(inverse > 0, 1.0 / inverse, 0.0).squeeze(1)  # [B]
    mine = own_rows(unit, rows, targets.to(torch.int64), sub_centers=sub_centers)
    if observe:
        _show(mine, norms, (margin, negatives), ranks)
    own = own_logit(mine.cosine, norms[mine.samples], margin)
    if negatives is None and sub_centers > 1 and label_smoothing > 0:
        negatives = Unchanged()
    bound = 1.0 if negatives is None else negatives.bound
    shifts = needs_shift(scale * bound, num_rows=most_rows or len(rows), dtype=unit.dtype)
    logit = mine.of_batch(own.logit)  # [B, 1], 0 where another rank has the class
    if is_known := negatives is not None or shifts:
        ranks.sum_(logit, TARGETS)
    whole = max(chunk_size // sub_centers, 1) * sub_centers
    scoring = Scoring(
        unit_embeddings=unit,
        targets=Targets.sort(mine.row, num_rows=len(rows), chunk_size=whole),
        target_logit=logit,
        scale=scale,
        operands=operands or rows.dtype,
        rule=frozen(negatives),
        smoothing=label_smoothing,
        sub_centers=sub_centers,
    )
    if shifts:
        largest = ranks.max_(largest_logit(scoring, rows), LARGEST)
        scoring = replace(scoring, shift=largest * in_base_2(scale))
    sums = _sum_negatives(scoring, rows, keeps=scoring.num_bytes(len(rows)) <= kept_bytes)
    if sums.even is not None and negatives is None:
        sums.even.leave_out(mine.unit, unit, mine.samples)
    _join(sums, None if is_known else logit, ranks)
    penalty = penalty_of(margin, norms)
    losses = _losses(scoring, sums, penalty)
    found = _finish(scoring, sums, losses, mine, own, inverse)
    if penalty is not None and ranks.rank == 0:
        found.embedding_gradient.addcmul_(penalty.slope / len(unit), unit)
    return found


def _show(mine: OwnRows, norms: Tensor, parts: tuple[object, ...], ranks: Ranks) -> None:
    """The batch to the running averages of `parts`; every rank sees all of it."""
    if any(isinstance(part, Stateful) for part in parts):
        cosines = torch.full_like(norms, -torch.inf)
        ranks.max_(cosines.index_copy_(0, mine.samples, mine.cosine), COSINES)
        let_observe(parts, cosines[cosines > -torch.inf], norms)


@dataclass
class _Sums:
    """N_i [B, 1] and O_i [B, D] over all chunks; label smoothing's sums; the kept numerators."""

    negatives: Tensor
    pull: Tensor
    even: EvenSums | None
    kept: list[Numerators] | None


@dataclass(frozen=True)
class _Losses:
    """Mean loss; s / (B Z_i), s / B pull_i and s eps / (B K_i), [B, 1] each."""

    mean: Tensor
    row_weight: Tensor
    pull: Tensor
    even_weight: Tensor | None


def _sum_negatives(scoring: Scoring, rows: Rows, *, keeps: bool) -> _Sums:
    """N_i, O_i, and what label smoothing sums, over all chunks."""
    unit = scoring.unit_embeddings
    sums = _Sums(
        unit.new_zeros(unit.shape[0], 1),
        torch.zeros_like(unit),
        EvenSums(unit) if scoring.smoothing > 0 else None,
        [] if keeps else None,
    )
    for chunk, found in numerators(scoring, rows, sums.negatives):
        sums.pull += product(found.values, chunk.operand)
        if sums.even is not None:
            _add_even(sums.even, chunk, found)
        if sums.kept is not None:
            sums.kept.append(found)
    return sums


def _add_even(even: EvenSums, chunk: Chunk, found: Numerators) -> None:
    if chunk.scored is None or found.even is None:
        even.add_everything(chunk.operand, chunk.inverse)
    else:
        even.add(chunk.scored.logits, product(found.even, chunk.operand))


def _join(sums: _Sums, logit: Tensor | None, ranks: Ranks) -> None:
    """Add up over ranks, in place, what is a number per sample: stage 11."""
    parts = [sums.negatives] if logit is None else [sums.negatives, logit]
    if sums.even is not None:
        parts += [sums.even.count, sums.even.logits]
    if not ranks.is_alone:
        together = ranks.sum_(torch.stack(parts), SUMS)
        for part, whole in zip(parts, together, strict=True):
            part.copy_(whole)


def _losses(scoring: Scoring, sums: _Sums, penalty: Penalty | None) -> _Losses:
    """Loss of every sample, and the weights of stages 5 and 6."""
    scale, batch = scoring.scale, len(scoring.unit_embeddings)
    own_exponent = scoring.target_logit * in_base_2(scale)
    if scoring.shift is not None:
        own_exponent = own_exponent - scoring.shift
    # L = ln(1 + N / exp(s psi)): exact for tiny losses, and for a single class, where N is 0.
    losses = torch.logaddexp(
        (torch.log2(sums.negatives) - own_exponent) * math.log(2.0), sums.negatives.new_zeros(1)
    )  # [B, 1]
    # Not by way of the logarithm above, which would cost |s psi| roundings.
    row_weight = (scale / batch) / (sums.negatives + torch.exp2(own_exponent))  # [B, 1]
    row_weight.clamp_max_(torch.finfo(row_weight.dtype).max)  # N = 0: nothing to weigh, no inf * 0
    pull, even_weight = row_weight * sums.negatives, None  # [B, 1]
    if sums.even is not None:
        even_weight = scoring.smoothing * scale / (batch * (sums.even.count + 1.0))  # [B, 1]
        even = sums.even.count * scoring.target_logit - sums.even.logits
        losses += even_weight * batch * even
        pull -= even_weight * sums.even.count
    if penalty is not None:
        losses += penalty.values
    return _Losses(losses.mean(), row_weight, pull, even_weight)


def _finish(
    scoring: Scoring,
    sums: _Sums,
    losses: _Losses,
    mine: OwnRows,
    own: OwnLogit,
    inverse: Tensor,
) -> StreamedLoss:
    """The embedding gradient, of several ranks their part of it; `sums` is used up."""
    unit = scoring.unit_embeddings
    gradient, pull = sums.pull.mul_(losses.row_weight), losses.pull[mine.samples]  # [B, D], [b, 1]
    if sums.even is not None and losses.even_weight is not None:
        gradient.addcmul_(losses.even_weight, sums.even.pull, value=-1.0)
    target_pull = pull * own.slope  # [b, 1]
    mine.add_(gradient, target_pull * mine.unit, -1.0)
    gradient = tangent_gradient(gradient, unit, inverse)
    if own.length_slope is not None:
        mine.add_(gradient, pull * own.length_slope * unit[mine.samples], -1.0)
    residual = Residual(
        scoring, losses.row_weight, mine.of_batch(target_pull), losses.even_weight, sums.kept
    )
    return StreamedLoss(losses.mean, gradient, residual)


def row_gradients(residual: Residual, rows: Rows) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, d loss / d rows[start:stop]) of every chunk; stage 6.

    The yielded [stop - start, D] tensor belongs to the caller until the next chunk is asked for. A
    chunk is read before it is yielded, so its rows may be overwritten in between.
    """
    scoring = residual.scoring
    weighted = (scoring.unit_embeddings * residual.row_weight).to(scoring.operands)  # [B, D]
    pulled = scoring.unit_embeddings * residual.target_pull  # [B, D]
    even, everywhere = _even_shares(residual)  # [B, D], [D]; both None without label smoothing
    if everywhere is not None and even is not None:
        pulled = pulled - even  # own samples added back
    again = (chunk for _, chunk in numerators(scoring, rows))
    for chunk in residual.kept or again:
        gradient = as_it_comes(chunk.values.T, weighted)  # [m, D]
        if everywhere is not None:
            gradient = gradient - chunk.inverse * everywhere
        if chunk.even is not None and even is not None:
            gradient = gradient - product(chunk.even.T, even.to(scoring.operands))
        read = stretched(rows.read(chunk.start, chunk.stop), chunk.stretch)
        gradient = tangent_part(gradient, read, chunk.inverse)
        samples, places = scoring.targets.of_chunk(chunk.start)
        inverse = chunk.inverse[places]
        own = tangent_part(pulled[samples] * inverse, read[places], inverse)
        gradient.index_add_(0, places, own, alpha=-1.0)
        yield chunk.start, chunk.stop, stretched(gradient, chunk.stretch)


def _even_shares(residual: Residual) -> tuple[Tensor | None, Tensor | None]:
    """s eps / (B K_i) x^_i [B, D], and their sum [D] if every row gets all of them."""
    if residual.even_weight is None:
        return None, None
    even = residual.scoring.unit_embeddings * residual.even_weight
    return even, even.sum(dim=0) if residual.scoring.rule is None else None

r"""Numerators of a margin softmax, a chunk of classes at a time; legend and stages in `streamed`.

    rows [m, D]  ->  cosines [B, m]  ->  of classes [B, n]  ->  g  ->  E = 2^(a g)  ->  E^ g' [B, m]
          product       `nearest`          rule, -inf at targets         1 / |w|, `spread`

With one row per class m = n, and the steps of `sub_centers` do nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.base.numeric import working_dtype
from manyface.kernels import Kernels, choose, inverse_lengths
from manyface.margins import NegativeRule
from manyface.softmax.products import product
from manyface.softmax.rows import Rows, chunk_borders
from manyface.softmax.sub_centers import nearest, spread
from manyface.softmax.target import Targets

# Rows shorter than this are brought to length 1 first, for the sake of accuracy.
_SHORTEST = 1e-4


@dataclass(frozen=True)
class Scoring:
    """What the numerators of a batch are made from, beside the rows.

    Attributes:
        unit_embeddings: x^ [B, D].
        targets: own rows.
        target_logit: psi, [B, 1].
        scale: s.
        operands: dtype of the factors of the products.
        rule: for the negatives, as it was in the forward pass, or None.
        smoothing: eps.
        sub_centers: S, rows per class.
        shift: base-2 exponent subtracted from every logit of a sample [B, 1], or None.
    """

    unit_embeddings: Tensor
    targets: Targets
    target_logit: Tensor
    scale: float
    operands: torch.dtype
    rule: NegativeRule | None = None
    smoothing: float = 0.0
    sub_centers: int = 1
    shift: Tensor | None = None

    def own_of_chunk(self, start: int) -> tuple[Tensor, Tensor]:
        """Samples whose own class is in the chunk at `start`, and that class's place in it."""
        samples, places = self.targets.of_chunk(start)
        return samples, places if self.sub_centers == 1 else places // self.sub_centers

    @property
    def shortest(self) -> float:
        """Length below which rows are brought to length 1 first, lest E / |w| overflow."""
        if self.shift is not None:
            return _SHORTEST  # E <= 1
        bound = 1.0 if self.rule is None else self.rule.bound
        largest = math.log(torch.finfo(self.unit_embeddings.dtype).max) - 1.0
        return max(_SHORTEST, math.exp(min(self.scale * bound - largest, 0.0)))

    def num_bytes(self, num_rows: int) -> int:
        """Of all numerators, were they kept."""
        each = 2 if self.rule is not None and self.smoothing > 0 else 1
        return each * len(self.unit_embeddings) * num_rows * self.operands.itemsize


@dataclass(frozen=True)
class Scored:
    """A chunk's cosines after the rule: g, -inf at targets, and g', 0 where g is -inf; [B, n]."""

    logits: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class Chunk:
    """Rows [start, stop), as they were read and scored.

    Attributes:
        start: first row.
        stop: one past the last.
        operand: w as a factor of products, [m, D].
        inverse: 1 / |w|, [m, 1].
        stretch: [m, 1] or None; factor by which rows were lengthened before all this.
        which: nearest row of each class, [B, n]; None if it has only one.
        scored: what the rule says; None without one.
    """

    start: int
    stop: int
    operand: Tensor
    inverse: Tensor
    stretch: Tensor | None
    which: Tensor | None
    scored: Scored | None

    def spread(self, values: Tensor) -> Tensor:
        """Of classes [B, n] -> of rows [B, m]."""
        if self.which is None:
            return values
        return spread(values, self.which, len(self.operand) // self.which.shape[1])


@dataclass(frozen=True)
class Numerators:
    """A chunk as stages 5 and 6 need it.

    Attributes:
        start, stop, inverse, stretch: as in `Chunk`.
        values: E^ g' [B, m], targets 0, in the dtype of the operands.
        even: g' / |w| [B, m], 0 where one takes no part, in the dtype of the operands; with a rule
            and label smoothing, else None.
    """

    start: int
    stop: int
    inverse: Tensor
    stretch: Tensor | None
    values: Tensor
    even: Tensor | None = None


def in_base_2(scale: float) -> float:
    """a, with 2^(a c) = e^(s c)."""
    return scale * math.log2(math.e)


def numerators(
    scoring: Scoring, rows: Rows, sums: Tensor | None = None
) -> Iterator[tuple[Chunk, Numerators]]:
    """Of all chunks; the row sums of E are added to `sums` [B, 1]."""
    kernels = choose(scoring.unit_embeddings.device, scoring.operands).kernels()
    is_plain = scoring.rule is None and scoring.sub_centers == 1
    if kernels and is_plain and scoring.unit_embeddings.dtype == torch.float32:
        yield from _by_kernel(kernels, scoring, rows, sums)
        return
    for chunk, exponents in _logits(scoring, rows, factor=in_base_2(scoring.scale)):
        if scoring.shift is not None:
            exponents -= scoring.shift
        exponentials = exponents.exp2_()  # [B, n]
        if sums is not None:
            sums += exponentials.sum(dim=1, keepdim=True)
        yield chunk, _divided(chunk, exponentials, scoring)


def _by_kernel(
    kernels: Kernels, scoring: Scoring, rows: Rows, sums: Tensor | None
) -> Iterator[tuple[Chunk, Numerators]]:
    """As `numerators` without a rule: all that follows the product in one pass."""
    queries = (scoring.unit_embeddings * in_base_2(scoring.scale)).to(scoring.operands)
    for start, stop in chunk_borders(len(rows), scoring.targets.chunk_size):
        operand, inverse, stretch = _as_operand(rows.read(start, stop), scoring)
        own = scoring.targets.row - start  # [B], places in the chunk
        values, of_chunk = kernels.numerators(queries, operand, inverse, own, scoring.shift)
        if sums is not None:
            sums += of_chunk
        chunk = Chunk(start, stop, operand, inverse, stretch, which=None, scored=None)
        yield chunk, Numerators(start, stop, inverse, stretch, values)


def _divided(chunk: Chunk, exponentials: Tensor, scoring: Scoring) -> Numerators:
    """E^ g' = E g' / |w| as operands of the products; `exponentials` [B, n] is overwritten."""
    values, even = chunk.spread(exponentials).mul_(chunk.inverse.T), None  # [B, m]
    if chunk.scored is not None:
        slopes = chunk.spread(chunk.scored.slopes)
        values.mul_(slopes)
        if scoring.smoothing > 0:
            even = (slopes * chunk.inverse.T).to(scoring.operands)
    return Numerators(
        chunk.start, chunk.stop, chunk.inverse, chunk.stretch, values.to(scoring.operands), even
    )


def largest_logit(scoring: Scoring, rows: Rows) -> Tensor:
    """Each sample's largest logit over s, [B, 1]: one more pass, for unusual scales only."""
    largest = scoring.target_logit.clone()  # not to be overwritten, where there is no chunk
    for _, logits in _logits(scoring, rows, factor=1.0):
        largest = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
    return largest


def stretched(values: Tensor, stretch: Tensor | None) -> Tensor:
    """`values` [m, D] as those of lengthened rows, in the dtype of `stretch` then; or a gradient
    back."""
    return values if stretch is None else values * stretch


def _logits(scoring: Scoring, rows: Rows, *, factor: float) -> Iterator[tuple[Chunk, Tensor]]:
    """Each chunk, and `factor` times its logits over s [B, n], -inf at targets."""
    folded = factor if scoring.rule is None else 1.0  # a rule wants cosines
    queries = (scoring.unit_embeddings * folded).to(scoring.operands)  # [B, D]
    for start, stop in chunk_borders(len(rows), scoring.targets.chunk_size):
        operand, inverse, stretch = _as_operand(rows.read(start, stop), scoring)
        logits, which = product(queries, operand.T).mul_(inverse.T), None  # [B, m]
        if scoring.sub_centers > 1:
            logits, which = nearest(logits, scoring.sub_centers)  # [B, n]
        scored = _score(scoring, logits, start)
        if scored is not None:
            logits = scored.logits * factor
        else:
            logits.index_put_(scoring.own_of_chunk(start), logits.new_tensor(-math.inf))
        yield Chunk(start, stop, operand, inverse, stretch, which, scored), logits


def _score(scoring: Scoring, cosines: Tensor, start: int) -> Scored | None:
    """What the rule makes of the chunk at `start`, cosines [B, n]; None without a rule."""
    if scoring.rule is None:
        return None
    logits, slopes = scoring.rule(cosines, scoring.target_logit)
    own = scoring.own_of_chunk(start)
    logits = logits.index_put(own, logits.new_tensor(-math.inf))  # the rule may have kept its own
    return Scored(logits, torch.where(logits > -math.inf, slopes, 0.0))


def _as_operand(rows: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows [m, D] as a factor of products, their 1 / |w| [m, 1], the stretch of short ones."""
    inverse, operands = inverse_lengths(rows), scoring.operands
    is_short = inverse > 1.0 / scoring.shortest
    if not bool(is_short.any()):
        return rows.to(operands), inverse, None
    values = rows.to(working_dtype(rows.dtype))
    stretch = torch.where(is_short, inverse, 1.0)
    return (values * stretch).to(operands), inverse / stretch, stretch

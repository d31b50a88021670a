r"""The dynamic class pool: features of a gallery net in place of class centers (arXiv 2105.10375).

A slot of the pool holds the newest feature of one identity (or the newest two). Nothing in it is
trained: rows come from `write`, and the loss has a gradient in the embeddings alone, finished in
the forward pass like that of the other heads. So rows may be overwritten at once, which the
official code survives only under autocast.

    inside   identities in the pool: margin softmax over the pool's rows, mean over the samples
    outside  the others: mean over the samples and over their k largest cosines c with the pool of
             max(c - clip, 0), times `outlier_weight`

Which identity has which slot is not this file's concern (`slots`, `pool_plan`).

*Ranks.* Slots are sharded as class centers are, and each rank holds the rows of its own. A half
batch is the parts of all ranks, rank by rank, and plans speak of all of it. In a pass the gallery's
features are all-gathered and every rank writes the slots that it has: no row travels. The probes'
embeddings are all-gathered and scored as in stage 11 of `softmax/streamed.py`; each rank says the k
largest cosines of the samples outside with its rows, and the largest of all count. A rank's part of
the gradient is that of its rows, summed by a reduce-scatter.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.numeric import tangent_gradient, unit_rows
from manyface.base.random import torch_generator
from manyface.heads.base import EMBEDDINGS, GRADIENTS
from manyface.heads.checks import (
    check_arguments,
    check_count,
    check_finite,
    check_shape,
    refuse_margin,
)
from manyface.heads.placement import FEATURES
from manyface.heads.pool_plan import PassPlan, StepPlan
from manyface.margins import Margin
from manyface.parallel import Ranks, Shard
from manyface.softmax.function import finished
from manyface.softmax.rows import Rows, TensorRows, chunk_borders
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE, streamed_forward

ROWS = "the pool's rows"  # what they are called in errors
# What collectives are called, beside those of class centers and of the softmax.
GALLERY, HARDEST = "gallery features", "hardest cosines"
_DRAWN_SLOTS = 4096  # by one generator
_NAME, _OLD_NAME = "slot_rows", "rows"  # in a state; the old one was [features, slots, dim]


@dataclass(frozen=True)
class Overwritten:
    """What a write has replaced here: `values` [W, D] at (`slots`, `rows`) int64 [W]."""

    slots: Tensor
    rows: Tensor
    values: Tensor


class DynamicClassPool(nn.Module):
    """Rows of Q slots, and the loss of embeddings against them.

    Args:
        num_slots: Q, of all ranks together.
        dim: D, length of an embedding.
        margin: target cosine -> target logit; one without running averages or trained lengths.
        scale: s of the softmax.
        features: newest features kept per identity, 1 or 2. With 2 the loss is the sum of two:
            against the first row of every slot, and against the second where the pass's gallery
            batch has met an identity again.
        outlier_weight: factor of the loss of identities outside the pool; 0 leaves it out.
        hard_negatives: k; None is the official min(max(0.0002 Q, 3), 10).
        outlier_clip: cosines up to here cost nothing; in [0, 1].
        count_empty: rows that were never written count as negatives, as in the official code: unit
            vectors of draws from [0, 1), all in one quadrant. Else nobody reads them.
        seed, chunk_size, dtype, device, ranks: as in the other heads.

    Attributes:
        slot_rows: [q, F, D], the rows of `shard`'s slots: of the state the only tensor that is a
            shard, in dimension 0. A load takes a rank's own rows out of a state of all slots.
        shard: which slots are here.
    """

    slot_rows: Tensor

    def __init__(
        self,
        num_slots: int,
        dim: int,
        *,
        margin: Margin,
        scale: float = 32.0,
        features: int = 1,
        outlier_weight: float = 1.0,
        hard_negatives: int | None = None,
        outlier_clip: float = 0.0,
        count_empty: bool = False,
        seed: int = 0,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        check_arguments(
            margin=margin, scale=scale, chunk_size=chunk_size, dtype=dtype, what=ROWS, seed=seed
        )
        refuse_margin(margin, head="F2C")
        check_count("num_slots", num_slots)
        check_count("dim", dim)
        if hard_negatives is not None:
            check_count("hard_negatives", hard_negatives)
        _check_pool(features, outlier_weight, outlier_clip)
        self.num_slots, self.dim, self.features = num_slots, dim, features
        self.margin, self.scale, self.chunk_size = margin, float(scale), chunk_size
        self.outlier_weight, self.outlier_clip = outlier_weight, outlier_clip
        self.hard_negatives = hard_negatives or default_hard_negatives(num_slots)
        self.count_empty = count_empty
        self.ranks = ranks or Ranks()
        self.shard = Shard.of(num_slots, rank=self.ranks.rank, size=self.ranks.size)
        first = _first_rows(self.shard, dim, seed=seed, positive=count_empty, dtype=dtype)
        first = first[:, None].expand(-1, features, -1).contiguous()  # [q, F, D]
        self.register_buffer(_NAME, first.to(device))
        self.register_load_state_dict_pre_hook(take_own_rows)  # type: ignore[no-untyped-call]

    def losses(
        self,
        plan: StepPlan,
        batches: Iterable[tuple[Tensor, Tensor]],
        counts: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Losses of a step's passes; what the last one's gallery has written stays.

        Args:
            plan: of the step, of the half batches of all ranks.
            batches: of each pass the probe's embeddings and the gallery's features, [n, D] each,
                of this rank; asked for one by one.
            counts: n of each rank; None is this one alone.

        An error or interrupt, of `batches` too, leaves the rows as they were.
        """
        losses: list[Tensor] = []
        written: list[Overwritten] = []  # of one pass at a time
        try:
            for each, (embeddings, features) in zip(plan.passes, batches, strict=False):
                self._take_all_back(written)
                written.append(self.write(each, features, counts))
                losses.append(self.loss(embeddings, each, counts))
        except BaseException:
            self._take_all_back(written)
            raise
        return losses

    @torch.no_grad()
    def write(
        self, plan: PassPlan, features: Tensor, counts: Sequence[int] | None = None
    ) -> Overwritten:
        """Put a gallery batch's features, of this rank [n, D], any length, where the plan says.

        Of several ranks an all-gather, `GALLERY`, of as many features as the fullest has, as they
        come.

        Raises:
            NonFiniteError: a feature holds NaN or infinity; on all ranks, whoever has it.
        """
        everyone = self._of_all_ranks(features, counts, GALLERY)
        here = self.shard.holds(plan.slots)
        kept = everyone[plan.kept[here].to(everyone.device)]
        rows = plan.rows[here] if self.features == FEATURES else torch.zeros_like(plan.rows[here])
        slots = (plan.slots[here] - self.shard.start).to(self.slot_rows.device)
        rows = rows.to(slots.device)
        before = Overwritten(slots, rows, self.slot_rows[slots, rows])
        self.slot_rows[slots, rows] = unit_rows(kept)[0]
        return before

    @torch.no_grad()
    def take_back(self, overwritten: Overwritten) -> None:
        """Undo a write."""
        self.slot_rows[overwritten.slots, overwritten.rows] = overwritten.values

    def _take_all_back(self, written: list[Overwritten]) -> None:
        for each in written:
            self.take_back(each)
        written.clear()

    def loss(
        self, embeddings: Tensor, plan: PassPlan, counts: Sequence[int] | None = None
    ) -> Tensor:
        """Loss of the probe batch, scalar, after the plan's gallery is written; the same on all
        ranks.

        The gradient of a rank's embeddings is times the number of ranks, as that of `CenterHead`.

        Of several ranks, with n on the fullest, of which there are W, I samples inside and O
        outside: an all-gather of n D embeddings as they come; for each feature that counts the
        all-reduces of the softmax (stage 11: 2 I numbers) and an all-gather `HARDEST` of O k
        cosines; a reduce-scatter of W n D gradients, under way until `backward` wants it.

        Args:
            embeddings: [n, D], of this rank.
            plan: of the pass.
            counts: n of each rank; None is this one alone.

        Raises:
            NonFiniteError: an embedding holds NaN or infinity; on all ranks, whoever has it.
        """
        everyone = self._of_all_ranks(embeddings, counts, EMBEDDINGS)
        with torch.autocast(self.slot_rows.device.type, enabled=False), torch.no_grad():
            loss, gradient = self._scored(everyone, plan)
        if not torch.is_grad_enabled():
            return loss
        mine = self.ranks.scatter_sum(gradient, counts or [len(embeddings)], GRADIENTS)
        return finished(embeddings, loss, mine, factor=self.ranks.size)

    def _of_all_ranks(self, values: Tensor, counts: Sequence[int] | None, name: str) -> Tensor:
        """`values` [n, D] of all ranks in the pool's dtype, checked; no gradient flows."""
        counts = counts or [len(values)]
        check_shape(values, batch=counts[self.ranks.rank], dim=self.dim)
        everyone = self.ranks.gather(values.detach(), counts, name).wait().to(self.slot_rows.dtype)
        check_finite(everyone, counts)
        return everyone

    def _scored(self, embeddings: Tensor, plan: PassPlan) -> tuple[Tensor, Tensor]:
        """Loss of all ranks' embeddings [n, D], and the part of its gradient of the rows here."""
        total, gradient = embeddings.new_zeros(()), torch.zeros_like(embeddings)
        count = self.num_slots if self.count_empty else plan.num_filled
        for rows in self._counted_rows(count, plan):
            for samples, loss, part in self._parts(embeddings, rows, plan, count):
                total += loss
                gradient.index_add_(0, samples, part)
        return total, gradient

    def _counted_rows(self, count: int, plan: PassPlan) -> Iterator[Rows]:
        """What is here of the first `count` slots: a row of each, for every feature."""
        rows = self.slot_rows[: max(count - self.shard.start, 0)]
        yield TensorRows(rows[:, 0])
        if self.features == FEATURES:
            again = plan.again[self.shard.holds(plan.again)] - self.shard.start
            yield _Replaced(rows, again.to(rows.device))

    def _parts(
        self, embeddings: Tensor, rows: Rows, plan: PassPlan, count: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Samples, loss, gradient of those inside and those outside the pool, if there are any."""
        device = embeddings.device
        if len(plan.inside):
            inside = plan.inside.to(device)
            targets = torch.where(
                self.shard.holds(plan.targets), plan.targets - self.shard.start, -1
            )
            found = streamed_forward(
                embeddings[inside],
                rows,
                targets.to(device),
                margin=self.margin,
                scale=self.scale,
                chunk_size=self.chunk_size,
                ranks=self.ranks,
                most_rows=count,
            )
            yield inside, found.loss, found.embedding_gradient
        if len(plan.outside) and self.outlier_weight > 0:
            outside = plan.outside.to(device)
            loss, gradient = self._outlier_loss(embeddings[outside], rows, count)
            yield outside, self.outlier_weight * loss, self.outlier_weight * gradient

    def _outlier_loss(self, embeddings: Tensor, rows: Rows, count: int) -> tuple[Tensor, Tensor]:
        """Of samples [O, D] against the `count` rows of all ranks."""
        unit, inverse = unit_rows(embeddings)
        places = hardest(unit, rows, k=self.hard_negatives, chunk_size=self.chunk_size)
        near = rows.take(places.flatten()).view(*places.shape, self.dim)  # [O, k here, D]
        cosines = torch.einsum("nd,nkd->nk", unit, near)
        k = min(self.hard_negatives, count)
        largest, is_one = largest_of_all(cosines, k=k, ranks=self.ranks)
        pull = (is_one & (cosines >= self.outlier_clip)).to(unit.dtype) / largest.numel()
        gradient = tangent_gradient(torch.einsum("nk,nkd->nd", pull, near), unit, inverse)
        return (largest - self.outlier_clip).clamp_min(0).mean(), gradient

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{self.num_slots}, {self.dim}, margin={self.margin}, scale={self.scale:g}"


def default_hard_negatives(num_slots: int) -> int:
    """k, as the authors' code has it."""
    return min(max(int(0.0002 * num_slots), 3), 10)


@torch.no_grad()
def hardest(unit: Tensor, rows: Rows, *, k: int, chunk_size: int) -> Tensor:
    """Places of the k rows nearest to each of `unit` [n, D]: int64 [n, min(k, rows)]."""
    best, places = unit.new_empty(len(unit), 0), torch.empty_like(unit[:, :0], dtype=torch.int64)
    for start, stop in chunk_borders(len(rows), chunk_size):
        cosines = torch.cat([best, unit @ rows.read(start, stop).T], dim=1)  # [n, k + chunk]
        here = torch.arange(start, stop, device=unit.device).expand(len(unit), -1)
        best, chosen = cosines.topk(min(k, cosines.shape[1]), dim=1)
        places = torch.cat([places, here], dim=1).gather(1, chosen)
    return places


def largest_of_all(cosines: Tensor, *, k: int, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """The k largest of each sample over all ranks [n, k], and which of these here are: bool [n, m].

    Args:
        cosines: [n, m], m <= k, the largest ones here.
        k: at most as many as all ranks have together.
        ranks: all have the same n samples; an all-gather of n k numbers.
    """
    n, m = cosines.shape
    mine = cosines.new_full((n, k), -torch.inf)
    mine[:, :m] = cosines
    everyone = ranks.gather(mine, [n] * ranks.size, HARDEST).wait()
    largest, places = everyone.view(-1, n, k).transpose(0, 1).flatten(1).topk(k, dim=1)
    chosen = torch.zeros(n, ranks.size * k, dtype=torch.bool, device=cosines.device)
    chosen.scatter_(1, places, True)
    return largest, chosen[:, ranks.rank * k :][:, :m]


class _Replaced(TensorRows):
    """Of `tensor` [q, 2, D] the first row of every slot, but the second of `slots`, int64 [A]."""

    def __init__(self, tensor: Tensor, slots: Tensor) -> None:
        super().__init__(tensor[:, 0])
        self._second, self._slots = tensor[:, 1], slots

    def read(self, start: int, stop: int) -> Tensor:
        chunk = self.tensor[start:stop].clone()
        here = self._slots[(self._slots >= start) & (self._slots < stop)]
        chunk[here - start] = self._second[here]
        return chunk

    def take(self, places: Tensor) -> Tensor:
        replaced = torch.isin(places, self._slots)[:, None]
        return torch.where(replaced, self._second[places], self.tensor[places])


def _first_rows(shard: Shard, dim: int, *, seed: int, positive: bool, dtype: torch.dtype) -> Tensor:
    """Unit rows [q, D] of draws that depend on seed and slot alone."""
    draw = torch.rand if positive else torch.randn
    rows = torch.empty(len(shard), dim, dtype=dtype)
    for block in range(shard.start // _DRAWN_SLOTS, -(-shard.stop // _DRAWN_SLOTS)):
        generator, first = torch_generator(seed, "pool", block), block * _DRAWN_SLOTS
        drawn, _ = unit_rows(draw(_DRAWN_SLOTS, dim, generator=generator, dtype=dtype))
        start, stop = max(first, shard.start), min(first + _DRAWN_SLOTS, shard.stop)
        rows[start - shard.start : stop - shard.start] = drawn[start - first : stop - first]
    return rows


def take_own_rows(module: DynamicClassPool, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Before a load: bring rows into the shape of this rank's, or refuse those of another pool."""
    name = f"{prefix}{_NAME}"
    if (old := state.pop(f"{prefix}{_OLD_NAME}", None)) is not None:
        state[name] = old.transpose(0, 1)
    if (rows := state.get(name)) is None:
        return
    everyone = [module.num_slots, module.features, module.dim]
    if list(rows.shape) == everyone:
        state[name] = rows[module.shard.start : module.shard.stop]
    elif rows.shape != module.slot_rows.shape:
        raise ConfigError(
            "the state is of another pool: its rows [slots, features, dim] are "
            f"{list(rows.shape)}, here {everyone}; make the pool as it was"
        )


def _check_pool(features: int, outlier_weight: float, outlier_clip: float) -> None:
    if features not in (1, FEATURES):
        raise ConfigError(f"a pool keeps 1 or 2 features per identity, got {features}")
    if not 0 <= outlier_weight < float("inf"):
        raise ConfigError(f"outlier_weight must be a number of at least 0, got {outlier_weight}")
    if not 0 <= outlier_clip <= 1:
        raise ConfigError(f"outlier_clip must be a cosine in [0, 1], got {outlier_clip}")

r"""The dynamic class pool: features of a gallery net in place of class centers (arXiv 2105.10375).

A slot of the pool holds the newest feature of one identity (or the newest two). Nothing in it is
trained: rows come from `write`, and the loss has a gradient in the embeddings alone, finished in
the forward pass like that of the other heads. So rows may be overwritten at once, which the
official code survives only under autocast.

    inside   identities in the pool: margin softmax over the pool's rows, mean over the samples
    outside  the others: mean over the samples and over their k largest cosines c with the pool of
             max(c - clip, 0), times `outlier_weight`

Which identity has which slot is not this file's concern (`slots`, `pool_plan`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.numeric import unit_rows
from manyface.base.random import torch_generator
from manyface.heads.checks import check_arguments, check_count, check_embeddings, refuse_margin
from manyface.heads.placement import FEATURES
from manyface.heads.pool_plan import PassPlan, StepPlan
from manyface.margins import Margin
from manyface.softmax.function import fixed_rows_softmax
from manyface.softmax.rows import Rows, TensorRows, chunk_borders
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE

ROWS = "the pool's rows"  # what they are called in errors


@dataclass(frozen=True)
class Overwritten:
    """What a write has replaced: `values` [W, D] at (`rows`, `slots`) int64 [W]."""

    rows: Tensor
    slots: Tensor
    values: Tensor


class DynamicClassPool(nn.Module):
    """Rows of Q slots, and the loss of embeddings against them.

    Args:
        num_slots: Q.
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
        seed, chunk_size, dtype, device: as in the other heads.
    """

    rows: Tensor

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
    ) -> None:
        super().__init__()
        check_arguments(margin=margin, scale=scale, chunk_size=chunk_size, dtype=dtype, what=ROWS)
        refuse_margin(margin, head="F2C")
        check_count("num_slots", num_slots)
        check_count("dim", dim)
        if hard_negatives is not None:
            check_count("hard_negatives", hard_negatives)
        _check_pool(features, outlier_weight, outlier_clip)
        self.num_slots, self.dim, self.features = num_slots, dim, features
        self.margin, self.scale, self.chunk_size = margin, float(scale), chunk_size
        self.outlier_weight, self.outlier_clip = outlier_weight, outlier_clip
        self.hard_negatives = hard_negatives or min(max(int(0.0002 * num_slots), 3), 10)
        self.count_empty = count_empty
        generator = torch_generator(seed, "pool")
        draw = torch.rand if count_empty else torch.randn
        first, _ = unit_rows(draw(num_slots, dim, generator=generator, dtype=dtype))
        self.register_buffer("rows", first.to(device).repeat(features, 1, 1))  # [F, Q, D]

    def losses(self, plan: StepPlan, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Losses of a step's passes; what the last one's gallery has written stays.

        Args:
            plan: of the step.
            batches: of each pass the probe's embeddings and the gallery's features, [n, D] each;
                asked for one by one.

        An error or interrupt, of `batches` too, leaves the rows as they were.
        """
        losses: list[Tensor] = []
        written: list[Overwritten] = []  # of one pass at a time
        try:
            for each, (embeddings, features) in zip(plan.passes, batches, strict=False):
                self._take_all_back(written)
                written.append(self.write(each, features))
                losses.append(self.loss(embeddings, each))
        except BaseException:
            self._take_all_back(written)
            raise
        return losses

    @torch.no_grad()
    def write(self, plan: PassPlan, features: Tensor) -> Overwritten:
        """Put a gallery batch's features [n, D], any length, where the plan says."""
        check_embeddings(features, dim=self.dim)
        rows = plan.rows if self.features == FEATURES else torch.zeros_like(plan.rows)
        rows, slots = rows.to(self.rows.device), plan.slots.to(self.rows.device)
        before = Overwritten(rows, slots, self.rows[rows, slots])
        unit, _ = unit_rows(features[plan.kept.to(features.device)].to(self.rows.dtype))
        self.rows[rows, slots] = unit
        return before

    @torch.no_grad()
    def take_back(self, overwritten: Overwritten) -> None:
        """Undo a write."""
        self.rows[overwritten.rows, overwritten.slots] = overwritten.values

    def _take_all_back(self, written: list[Overwritten]) -> None:
        for each in written:
            self.take_back(each)
        written.clear()

    def loss(self, embeddings: Tensor, plan: PassPlan) -> Tensor:
        """Loss of the probe batch's embeddings [n, D], scalar, after the plan's gallery is written.

        Raises:
            NonFiniteError: an embedding holds NaN or infinity.
        """
        check_embeddings(embeddings.detach(), dim=self.dim)
        count = self.num_slots if self.count_empty else plan.num_filled
        rows: list[Rows] = [TensorRows(self.rows[0, :count])]
        if self.features == FEATURES:
            again = plan.again.to(self.rows.device)
            rows.append(_Replaced(self.rows[:, :count], again))
        with torch.autocast(self.rows.device.type, enabled=False):
            values = embeddings.to(self.rows.dtype)
            parts = [part for each in rows for part in self._parts(values, each, plan)]
        return sum(parts, values.sum() * 0.0)

    def _parts(self, embeddings: Tensor, rows: Rows, plan: PassPlan) -> list[Tensor]:
        """The losses of samples inside and outside the pool, each where there are any."""
        parts = []
        device = embeddings.device
        if len(plan.inside):
            inside = embeddings[plan.inside.to(device)]
            parts.append(self._softmax(inside, rows, plan.targets.to(device)))
        if len(plan.outside) and self.outlier_weight > 0:
            outside = embeddings[plan.outside.to(device)]
            parts.append(self.outlier_weight * self._outlier_loss(outside, rows))
        return parts

    def _softmax(self, embeddings: Tensor, rows: Rows, targets: Tensor) -> Tensor:
        return fixed_rows_softmax(
            embeddings,
            rows,
            targets,
            margin=self.margin,
            scale=self.scale,
            chunk_size=self.chunk_size,
        )

    def _outlier_loss(self, embeddings: Tensor, rows: Rows) -> Tensor:
        unit, _ = unit_rows(embeddings)  # [n, D]
        places = hardest(unit.detach(), rows, k=self.hard_negatives, chunk_size=self.chunk_size)
        negatives = rows.take(places.flatten()).view(*places.shape, -1)  # [n, k, D], a copy
        cosines = torch.einsum("nd,nkd->nk", unit, negatives)
        return (cosines - self.outlier_clip).clamp_min(0).mean()

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{self.num_slots}, {self.dim}, margin={self.margin}, scale={self.scale:g}"


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


class _Replaced(TensorRows):
    """Of `tensor` [2, F, D] the first row of every slot, but the second of `slots`, int64 [A]."""

    def __init__(self, tensor: Tensor, slots: Tensor) -> None:
        super().__init__(tensor[0])
        self._second, self._slots = tensor[1], slots

    def read(self, start: int, stop: int) -> Tensor:
        chunk = self.tensor[start:stop].clone()
        here = self._slots[(self._slots >= start) & (self._slots < stop)]
        chunk[here - start] = self._second[here]
        return chunk

    def take(self, places: Tensor) -> Tensor:
        replaced = torch.isin(places, self._slots)[:, None]
        return torch.where(replaced, self._second[places], self.tensor[places])


def _check_pool(features: int, outlier_weight: float, outlier_clip: float) -> None:
    if features not in (1, FEATURES):
        raise ConfigError(f"a pool keeps 1 or 2 features per identity, got {features}")
    if not 0 <= outlier_weight < float("inf"):
        raise ConfigError(f"outlier_weight must be a number of at least 0, got {outlier_weight}")
    if not 0 <= outlier_clip <= 1:
        raise ConfigError(f"outlier_clip must be a cosine in [0, 1], got {outlier_clip}")

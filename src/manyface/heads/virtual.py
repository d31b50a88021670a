"""Virtual FC: a few anchors shared by many identities.

Li et al., "Virtual Fully-connected Layer: Training a Large-scale Face Recognition Dataset with
Limited Computational Resources", CVPR 2021.

Identity i belongs to the group i mod V and its anchor, V far smaller than the number of identities.
In each step the anchor of every identity in the batch becomes the mean of its embeddings there
(detached, unit length), and the batch is scored against all anchors. Where two identities of a
batch share an anchor, the first keeps it and the others borrow anchors of groups that are not in
the batch; these get their old rows back afterwards. So a batch has to show identities more than
once (`DualLoader(identity_share=1)`), and may have at most V identities. In eval mode or without
gradients all anchors get their old rows back.

Nothing is trained here: `step` does nothing. From the paper and its published code, in our words:
rows that were never written do not count as negatives, and unit means stand for their sums.

*Ranks.* Anchors are few and nothing is trained: every rank holds them all, writes those of the
whole batch, and scores its own samples against them. So no softmax is shared, and no gradient
travels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.numeric import unit_rows
from manyface.heads.announced import Announces
from manyface.heads.base import EMBEDDINGS
from manyface.heads.checks import (
    check_arguments,
    check_count,
    check_finite,
    check_shape,
    check_table,
    refuse_margin,
)
from manyface.margins import Margin
from manyface.parallel import Pending, Ranks, Shard
from manyface.softmax.function import finished
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE, streamed_forward

_ROWS = "anchors"
LOSS = "loss"  # what its collective is called


class Anchors(NamedTuple):
    """Anchors of a batch.

    Attributes:
        of_sample: int64 [B].
        distinct: int64 [I], of each identity of the batch; `group` int64 [B] says which of them
            each sample belongs to.
        borrowed: bool [I].
    """

    of_sample: Tensor
    distinct: Tensor
    group: Tensor
    borrowed: Tensor


class VirtualFC(nn.Module, Announces):
    """Margin softmax over V anchors; swapped with the other heads by one line.

    Args:
        num_classes: number of identities.
        num_anchors: V.
        dim: D, length of an embedding.
        margin: target cosine -> target logit; one without running averages or trained lengths.
        scale, chunk_size, dtype, device, ranks: as in the other heads.

    Its state is the same on all ranks.
    """

    rows: Tensor
    is_filled: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_anchors: int,
        dim: int,
        margin: Margin,
        scale: float = 64.0,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        check_arguments(margin=margin, scale=scale, chunk_size=chunk_size, dtype=dtype, what=_ROWS)
        refuse_margin(margin, head="Virtual FC")
        check_count("num_anchors", num_anchors)
        if not 1 <= num_anchors <= num_classes or dim < 1:
            raise ConfigError(
                "Virtual FC needs 1 <= num_anchors <= num_classes and dim >= 1, got "
                f"{num_anchors}, {num_classes} and {dim}"
            )
        self.num_classes, self.num_anchors, self.dim = num_classes, num_anchors, dim
        self.margin, self.scale, self.chunk_size = margin, float(scale), chunk_size
        self.ranks = ranks or Ranks()
        self.register_buffer("rows", torch.zeros(num_anchors, dim, dtype=dtype, device=device))
        self.register_buffer("is_filled", torch.zeros(num_anchors, dtype=torch.bool, device=device))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, scalar; in training with gradients it writes the anchors of its
        identities.

        Of several ranks each gives its part; loss and gradients are as in `CenterHead.forward`.
        Collectives: the labels (`announce`), an all-gather of as many embeddings as the fullest
        rank has, as they come, and an all-reduce of the loss.

        Args:
            embeddings: [b, dim], any length and floating dtype.
            labels: integer [b] in [0, num_classes).

        Raises:
            LabelError: a label is no integer or out of range, or there is not one per embedding.
            NonFiniteError: an embedding holds NaN or infinity; on all ranks, whoever has it.
            ConfigError: more identities than anchors, or the anchors are not float32 or float64.
        """
        check_table(self.rows, _ROWS)
        batch = self._batch_of(labels)
        check_shape(embeddings, batch=len(labels), dim=self.dim)
        everyone = self.ranks.gather(embeddings.detach(), batch.counts, EMBEDDINGS).wait()
        everyone = everyone.to(self.rows.dtype)
        check_finite(everyone, batch.counts)
        if len(everyone) == 0:
            return embeddings.sum()
        anchors = assign_anchors(batch.all_labels(), num_anchors=self.num_anchors)
        keeps = self.training and torch.is_grad_enabled()
        with torch.autocast(self.rows.device.type, enabled=False), torch.no_grad():
            loss, gradient = self._scored(everyone, anchors, batch.counts, keeps=keeps)
        return finished(embeddings, loss, Pending(lambda: gradient), factor=self.ranks.size)

    def shards(self) -> dict[str, Shard]:
        """The tensors of `state_dict` of which this rank has some rows: none."""
        return {}

    def step(self, lr: float, *, grad_scale: float = 1.0) -> None:
        """Nothing: anchors are written in `forward`."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: anchors have no gradient."""

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{self.num_classes}, {self.num_anchors}, {self.dim}, margin={self.margin}"

    def _scored(
        self, embeddings: Tensor, anchors: Anchors, counts: list[int], *, keeps: bool
    ) -> tuple[Tensor, Tensor]:
        """Loss of all ranks' embeddings [B, D], and its gradient in those of this rank; `keeps`
        what is written to anchors that are not borrowed."""
        rows, is_filled = self.rows[anchors.distinct], self.is_filled[anchors.distinct]
        self._write(embeddings, anchors)
        first = sum(counts[: self.ranks.rank])
        mine = slice(first, first + counts[self.ranks.rank])
        loss, gradient = self._score(embeddings[mine], anchors.of_sample[mine])
        lent = anchors.borrowed if keeps else torch.ones_like(anchors.borrowed)
        back = anchors.distinct[lent]
        self.rows[back], self.is_filled[back] = rows[lent], is_filled[lent]
        share = len(gradient) / len(embeddings)
        return self.ranks.sum_(loss * share, LOSS), gradient * share

    def _score(self, embeddings: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and gradient of samples [b, D], whose anchors are int64 [b]."""
        if len(embeddings) == 0:
            return embeddings.sum(), embeddings
        filled = self.is_filled.nonzero().squeeze(1)  # [F], sorted
        found = streamed_forward(
            embeddings,
            _Gathered(self.rows, filled),
            torch.searchsorted(filled, anchors),
            margin=self.margin,
            scale=self.scale,
            chunk_size=self.chunk_size,
        )
        return found.loss, found.embedding_gradient

    def _write(self, embeddings: Tensor, anchors: Anchors) -> None:
        unit, _ = unit_rows(embeddings)
        sums = unit.new_zeros(len(anchors.distinct), self.dim)
        sums.index_add_(0, anchors.group, unit)
        self.rows[anchors.distinct] = unit_rows(sums)[0]
        self.is_filled[anchors.distinct] = True


def assign_anchors(labels: Tensor, *, num_anchors: int) -> Anchors:
    """Each identity's own anchor, or a borrowed one.

    Raises:
        ConfigError: more identities than anchors.
    """
    identities, group = np.unique(labels.to("cpu", torch.int64).numpy(), return_inverse=True)
    if len(identities) > num_anchors:
        raise ConfigError(
            f"a batch has {len(identities)} identities, Virtual FC {num_anchors} anchors; "
            "take more anchors or a smaller batch"
        )
    own = identities % num_anchors
    _, first = np.unique(own, return_index=True)
    borrowed = np.ones(len(own), np.bool_)
    borrowed[first] = False
    free = np.setdiff1d(np.arange(min(num_anchors, 2 * len(own))), own)
    own[borrowed] = free[: int(borrowed.sum())]
    parts = (own[group], own, group, borrowed)
    return Anchors(*(torch.from_numpy(np.ascontiguousarray(p)).to(labels.device) for p in parts))


class _Gathered:
    """The rows `ids` (int64 [F]) of a tensor [V, D]."""

    def __init__(self, tensor: Tensor, ids: Tensor) -> None:
        self._tensor, self._ids, self.dtype = tensor, ids, tensor.dtype

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, stop: int) -> Tensor:
        return self._tensor[self._ids[start:stop]]

    def take(self, places: Tensor) -> Tensor:
        return self._tensor[self._ids[places]]

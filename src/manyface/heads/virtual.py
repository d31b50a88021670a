"""Virtual FC: a few anchors shared by many identities.

Li et al., "Virtual Fully-connected Layer: Training a Large-scale Face Recognition Dataset with
Limited Computational Resources", CVPR 2021.

Identity i belongs to the group i mod V and its anchor, V far smaller than the number of identities.
In each step the anchor of every identity in the batch becomes the mean of its embeddings there
(detached, unit length), and the batch is scored against all anchors. Where two identities of a
batch share an anchor, the first keeps it and the others borrow anchors of groups that are not in
the batch; these get their old rows back afterwards. So a batch has to show identities more than
once (`DualLoader(identity_share=1)`), and may have at most V identities.

Nothing is trained here: `step` does nothing. From the paper and its published code, in our words:
rows that were never written do not count as negatives, and unit means stand for their sums.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.numeric import unit_rows
from manyface.heads.checks import (
    check_arguments,
    check_count,
    check_embeddings,
    check_labels,
    check_one_process,
    check_table,
    refuse_margin,
)
from manyface.margins import Margin
from manyface.parallel import Shard
from manyface.softmax.function import fixed_rows_softmax
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE

_ROWS = "anchors"


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


class VirtualFC(nn.Module):
    """Margin softmax over V anchors; swapped with the other heads by one line.

    Args:
        num_classes: number of identities.
        num_anchors: V.
        dim: D, length of an embedding.
        margin: target cosine -> target logit; one without running averages or trained lengths.
        scale, chunk_size, dtype, device: as in the other heads.
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
        self.register_buffer("rows", torch.zeros(num_anchors, dim, dtype=dtype, device=device))
        self.register_buffer("is_filled", torch.zeros(num_anchors, dtype=torch.bool, device=device))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, scalar; writes the anchors of its identities.

        Args:
            embeddings: [B, dim], any length and floating dtype.
            labels: integer [B] in [0, num_classes).

        Raises:
            LabelError: a label is no integer or out of range, or there is not one per embedding.
            NonFiniteError: an embedding holds NaN or infinity.
            ConfigError: more identities than anchors, or the anchors are not float32 or float64.
        """
        check_one_process(_ROWS)
        check_table(self.rows, _ROWS)
        check_labels(labels, num_classes=self.num_classes, batch=embeddings.shape[0])
        check_embeddings(embeddings.detach(), dim=self.dim)
        if len(labels) == 0:
            return embeddings.sum()
        anchors = assign_anchors(labels, num_anchors=self.num_anchors)
        with torch.autocast(self.rows.device.type, enabled=False):
            return self._loss(embeddings.to(self.rows.dtype), anchors)

    def announce(self, labels: Tensor) -> None:
        """Nothing: one process."""

    def shards(self) -> dict[str, Shard]:
        """None: one process."""
        return {}

    def step(self, lr: float) -> None:
        """Nothing: anchors are written in `forward`."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: anchors have no gradient."""

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{self.num_classes}, {self.num_anchors}, {self.dim}, margin={self.margin}"

    def _loss(self, embeddings: Tensor, anchors: Anchors) -> Tensor:
        rows, is_filled = self.rows[anchors.distinct], self.is_filled[anchors.distinct]
        self._write(embeddings.detach(), anchors)
        filled = self.is_filled.nonzero().squeeze(1)  # [F], sorted
        loss = fixed_rows_softmax(
            embeddings,
            _Gathered(self.rows, filled),
            torch.searchsorted(filled, anchors.of_sample),
            margin=self.margin,
            scale=self.scale,
            chunk_size=self.chunk_size,
        )
        back = anchors.distinct[anchors.borrowed]
        self.rows[back], self.is_filled[back] = rows[anchors.borrowed], is_filled[anchors.borrowed]
        return loss

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

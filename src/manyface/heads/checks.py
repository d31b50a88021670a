"""What a head refuses, in words that lead to the cause.

insightface's head takes any label: one out of range gives a constant loss of 69.0776 for ever.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from manyface.base.errors import LabelError, NonFiniteError


def check_labels(labels: Tensor, *, num_classes: int, batch: int) -> None:
    """Labels must be integers [batch] in [0, num_classes)."""
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise LabelError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != (batch,):
        raise LabelError(
            f"expected one label per embedding, shape ({batch},), got {tuple(labels.shape)}"
        )
    wrong = (labels < 0) | (labels >= num_classes)
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise LabelError(
            f"label {int(labels[place])} at position {place} of the batch{_on_rank()} is outside "
            f"[0, {num_classes}): check num_classes and how labels are made"
        )


def check_embeddings(embeddings: Tensor, *, dim: int) -> None:
    """Embeddings must be [B, dim] and finite."""
    if embeddings.dim() != 2 or embeddings.shape[1] != dim:
        raise ValueError(f"embeddings must be [B, {dim}], got {list(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise ValueError(f"embeddings must be floating point, got {embeddings.dtype}")
    values = embeddings.detach()
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place, column = (int(index) for index in (~finite).nonzero()[0])
        raise NonFiniteError(
            f"embedding {place} of the batch{_on_rank()} holds {float(values[place, column])} "
            f"at column {column}: look at the learning rate, the input images and the precision"
        )


def _on_rank() -> str:
    return f" on rank {dist.get_rank()}" if dist.is_initialized() else ""

"""The oracle: margin softmax cross-entropy with all logits in memory, gradients by autograd.

Reads as the papers write it (e.g. arXiv 2010.05222, eq. 1): cosines of embeddings and class
centers, a margin on the target's, times the scale, cross-entropy, mean over the batch. Memory
O(B K). Every faster implementation is tested against this one, loss and every gradient.
"""

import torch
from torch import Tensor

from manyface.base.numeric import unit_rows
from manyface.margins import Margin


def dense_margin_softmax(
    embeddings: Tensor, rows: Tensor, targets: Tensor, *, margin: Margin, scale: float
) -> Tensor:
    """Mean margin-softmax loss of a batch.

    Args:
        embeddings: [B, D], any length, floating.
        rows: class centers [K, D], any length, same dtype.
        targets: int64 [B], index of each sample's own row.
        margin: target cosine -> target logit.
        scale: the factor s of all logits.

    Returns:
        scalar loss, differentiable in `embeddings` and `rows`; 0 for an empty batch.
    """
    if embeddings.shape[0] == 0:
        return embeddings.sum() + 0.0 * rows.sum()
    unit_embeddings, _ = unit_rows(embeddings)  # [B, D]
    unit_centers, _ = unit_rows(rows)  # [K, D]
    cosines = unit_embeddings @ unit_centers.T  # [B, K]
    norms = torch.linalg.vector_norm(embeddings.detach(), dim=1)
    own = targets[:, None]  # [B, 1]
    target_logit = margin(cosines.gather(1, own).squeeze(1), norms)  # [B]
    logits = scale * cosines.scatter(1, own, target_logit[:, None])  # [B, K]
    return torch.nn.functional.cross_entropy(logits, targets)

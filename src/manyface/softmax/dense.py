r"""The oracle: margin softmax cross-entropy with all logits in memory, gradients by autograd.

Reads as the papers write it (e.g. arXiv 2010.05222, eq. 1): cosines of embeddings and class
centers, a margin on the target's, times the scale, cross-entropy, mean over the batch. Memory
O(B K). Every faster implementation is tested against this one, loss and every gradient.

Definitions, with c_ij the cosine of sample i and class j, y the sample's own class:

- *Sub-centers* (Deng et al., ECCV 2020): a class has S rows, class j the rows j S to (j + 1) S - 1,
  and c_ij is the largest of their cosines; that row alone gets the gradient, on ties the first.
  Everything after it sees classes only: margin, rule for the negatives, labels.
- *Logits*: z_iy = s psi(c_iy) with the margin psi, z_ij = s g(c_ij) with the rule g for negatives.
- *Label smoothing* by eps, over the K_i classes that take part (their z_ij is not -inf):
      L_i = -(1 - eps) ln p_iy - eps / K_i sum_j ln p_ij,     p_i = softmax(z_i),
  torch's own definition, with the margin in z_iy.
- *Penalty*: a margin that trains the length of the embeddings adds the mean of its penalties.
"""

import torch
from torch import Tensor

from manyface.base.numeric import unit_rows
from manyface.margins import Margin, NegativeRule, TrainsNorm, let_observe
from manyface.margins.checks import check_label_smoothing
from manyface.softmax.sub_centers import check_sub_centers


def dense_margin_softmax(
    embeddings: Tensor,
    rows: Tensor,
    targets: Tensor,
    *,
    margin: Margin,
    scale: float,
    negatives: NegativeRule | None = None,
    label_smoothing: float = 0.0,
    sub_centers: int = 1,
    observe: bool = False,
) -> Tensor:
    """Mean margin-softmax loss of a batch.

    Args:
        embeddings: [B, D], any length, floating.
        rows: class centers [K * sub_centers, D], any length, same dtype.
        targets: int64 [B], each sample's own class in [0, K).
        margin: target cosine -> target logit.
        scale: the factor s of all logits.
        negatives: cosine of a negative class -> its logit; None leaves it as it is.
        label_smoothing: eps in [0, 1).
        sub_centers: rows per class.
        observe: first show the batch to the running averages of margin and rule, as in training.

    Returns:
        scalar loss, differentiable in `embeddings` and `rows`; 0 for an empty batch.

    Raises:
        ConfigError: impossible smoothing or number of sub-centers.
    """
    check_label_smoothing(label_smoothing)
    check_sub_centers(sub_centers, num_rows=rows.shape[0])
    if embeddings.shape[0] == 0:
        return embeddings.sum() + 0.0 * rows.sum()
    cosines = class_cosines(embeddings, rows, sub_centers=sub_centers)  # [B, K]
    norms = torch.linalg.vector_norm(embeddings, dim=1)  # [B]
    own = targets[:, None]  # [B, 1]
    target_cosine = cosines.gather(1, own).squeeze(1)  # [B]
    if observe:
        let_observe((margin, negatives), target_cosine, norms)
    trains_norm = isinstance(margin, TrainsNorm)
    target_logit = margin(target_cosine, norms if trains_norm else norms.detach())[:, None]
    if negatives is not None:
        cosines, _ = negatives(cosines, target_logit.detach())
    logits = scale * cosines.scatter(1, own, target_logit)  # [B, K]
    loss = _cross_entropy(logits, targets, smoothing=label_smoothing)
    return loss + margin.penalty(norms).mean() if isinstance(margin, TrainsNorm) else loss


def class_cosines(embeddings: Tensor, rows: Tensor, *, sub_centers: int) -> Tensor:
    """Cosine of each embedding [B, D] and each class, [B, K]: the largest of its sub-centers."""
    unit_embeddings, _ = unit_rows(embeddings)  # [B, D]
    unit_centers, _ = unit_rows(rows)  # [K S, D]
    cosines = unit_embeddings @ unit_centers.T  # [B, K S]
    if sub_centers == 1:
        return cosines
    by_class = cosines.view(cosines.shape[0], -1, sub_centers)  # [B, K, S]
    return by_class.max(dim=2).values  # max with a dim: the first of equal ones, in gradient too


def _cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    if smoothing == 0.0:
        return torch.nn.functional.cross_entropy(logits, targets)
    log_p = torch.log_softmax(logits, dim=1)  # [B, K]
    takes_part = logits > -torch.inf
    average = torch.where(takes_part, log_p, 0.0).sum(dim=1) / takes_part.sum(dim=1)  # [B]
    own = log_p.gather(1, targets[:, None]).squeeze(1)  # [B]
    return -((1.0 - smoothing) * own + smoothing * average).mean()

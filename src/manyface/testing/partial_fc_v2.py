"""insightface's PartialFC_V2 restated for one process: autograd over all rows, `weight[index]`;
and a step of it on several ranks, computed on the tensors of all of them.

Its softmax and margins as they train (recognition/arcface_torch): the value of ArcFace with the
gradient of the plain cosine, filtered classes with a cosine of 0. Left out is what has no effect on
gradients: the floor of 1e-30 under the probability whose logarithm is the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from manyface.margins import Margin


@dataclass
class MarginNumbers:
    """The attributes of their CombinedMarginLoss."""

    s: float = 64.0
    m1: float = 1.0
    m2: float = 0.5
    m3: float = 0.0
    interclass_filtering_threshold: float = 0.0


class DensePartialFC(nn.Module):
    """All rows are a parameter with a dense gradient, for `torch.optim` to move.

    Args:
        numbers: of the margin.
        weight: first values [N, D].
    """

    def __init__(self, numbers: MarginNumbers, weight: Tensor) -> None:
        super().__init__()
        self.numbers = numbers
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, embeddings: Tensor, labels: Tensor, index: Tensor | None = None) -> Tensor:
        """Mean loss; `index` int64 [K], sorted, are the classes that take part, None all."""
        rows = self.weight if index is None else self.weight[index]
        targets = labels if index is None else torch.searchsorted(index, labels)
        cosines = (normalize(embeddings) @ normalize(rows).T).clamp(-1.0, 1.0)  # [B, K]
        logits = self._logits(cosines, one_hot(targets, rows.shape[0]).bool())
        return cross_entropy(self.numbers.s * logits, targets)

    def _logits(self, cosines: Tensor, own: Tensor) -> Tensor:
        numbers, threshold = self.numbers, self.numbers.interclass_filtering_threshold
        if threshold > 0.0:
            cosines = torch.where((cosines > threshold) & ~own, 0.0, cosines)
        if numbers.m1 == 1.0 and numbers.m3 == 0.0:
            turned = torch.cos(torch.arccos(cosines) + numbers.m2)
            return cosines + torch.where(own, turned - cosines, 0.0).detach()
        return cosines - numbers.m3 * own


@dataclass(frozen=True)
class RanksStep:
    """Loss, the same on all ranks; gradients [B, D] of each rank's embeddings, as its backbone gets
    them, and [num_local, D] of its rows."""

    loss: Tensor
    embeddings: list[Tensor]
    rows: list[Tensor]


def step_on_ranks(
    embeddings: Sequence[Tensor],
    labels: Sequence[Tensor],
    weight: Tensor,
    *,
    margin: Margin,
    scale: float,
) -> RanksStep:
    """Their forward and backward at sample rate 1, and DistCrossEntropy, rank after rank.

    Args:
        embeddings: of each rank, [B, D], B the same on all.
        labels: of each rank, int64 [B], global class ids.
        weight: rows of all classes [N, D].
        margin: target cosine -> target logit, differentiated as it says.
        scale: s.
    """
    size, num_classes, batch_size = len(embeddings), len(weight), len(embeddings[0])
    gathered = torch.cat(list(embeddings)).detach().requires_grad_()
    all_labels = torch.cat(list(labels))
    rows, logits, targets = [], [], []
    for rank in range(size):
        num_local = num_classes // size + int(rank < num_classes % size)
        class_start = num_classes // size * rank + min(rank, num_classes % size)
        local = weight[class_start : class_start + num_local].detach().clone().requires_grad_()
        here = (class_start <= all_labels) & (all_labels < class_start + num_local)
        target = torch.where(here, all_labels - class_start, -1)
        cosines = (normalize(gathered) @ normalize(local).T).clamp(-1.0, 1.0)
        index = torch.where(target != -1)[0]
        changed = margin(cosines[index, target[index]], gathered[index].norm(dim=1).detach())
        rows.append(local)
        logits.append(scale * cosines.index_put((index, target[index]), changed))
        targets.append(target)
    largest = torch.stack([each.detach().amax(1) for each in logits]).amax(0)  # all-reduce, max
    exponentials = [torch.exp(each.detach() - largest[:, None]) for each in logits]
    total = torch.stack([each.sum(1) for each in exponentials]).sum(0)  # all-reduce, sum
    of_target, gradients = torch.zeros_like(total), []
    for exponential, target in zip(exponentials, targets, strict=True):
        probability = exponential / total[:, None]
        index = torch.where(target != -1)[0]
        of_target[index] += probability[index, target[index]]  # all-reduce, sum
        probability[index, target[index]] -= 1.0
        gradients.append(probability / len(gathered))
    torch.autograd.backward(logits, gradients)
    assert gathered.grad is not None  # noqa: S101  for the type
    # Summed over ranks, and times their number, "cooperate with distributed loss function".
    back = [each * size for each in gathered.grad.split(batch_size)]  # type: ignore[no-untyped-call]
    return RanksStep(
        -of_target.log().mean(), back, [each.grad for each in rows if each.grad is not None]
    )

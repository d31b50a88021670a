"""insightface's PartialFC_V2 restated for one process: autograd over all rows, `weight[index]`.

Its softmax and margins as they train (recognition/arcface_torch): the value of ArcFace with the
gradient of the plain cosine, filtered classes with a cosine of 0. Left out is what has no effect on
gradients: the floor of 1e-30 under the probability whose logarithm is the loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot


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

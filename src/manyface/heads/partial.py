"""Partial FC: the classes of the batch and a random sample of the others (arXiv 2203.15565).

Every class keeps its center, but a step reads, scores and updates int(sample_rate * num_classes)
of them (`sampling`). That cuts memory and time of the head by the sample rate, and makes it rarer
that two labels of one person push each other apart. As in the paper's code the softmax is over the
sample and not corrected for the sampling; the loss is therefore lower than the full FC's by about
-ln(sample_rate) where the model is undecided.

At sample_rate 1 it takes the same path (index list, gather, write-back) and equals `FullFC` bit for
bit. At 0 only the classes of the batch take part.
"""

from typing import Any

import torch
from torch import Tensor

from manyface.heads.base import CenterHead, Selection
from manyface.heads.sampling import sample_classes, sample_size
from manyface.margins import Margin


class PartialFC(CenterHead):
    """Margin softmax over a sample of the classes.

        head = PartialFC(num_classes=10_000_000, dim=512, margin=CosFace(0.4), sample_rate=0.1)
        loss = head(embeddings, labels); loss.backward(); head.step(lr)

    Args:
        sample_rate: share of the classes that take part in a step, in [0, 1].
        others: as in `CenterHead`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        margin: Margin,
        sample_rate: float = 0.1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.sample_rate = sample_rate
        self.sample_size = sample_size(num_classes, sample_rate)
        super().__init__(num_classes=num_classes, dim=dim, margin=margin, seed=seed, **options)
        self.seed = seed
        self.num_draws = 0

    def select(self, labels: Tensor) -> Selection:
        """Positives and this draw's negatives; a draw is used up only by a step that learns."""
        ids = sample_classes(
            labels,
            num_classes=self.num_classes,
            size=self.sample_size,
            seed=self.seed,
            step=self.num_draws,
        )
        if torch.is_grad_enabled():
            self.num_draws += 1
        return Selection(ids=ids, targets=torch.searchsorted(ids, labels))

    def get_extra_state(self) -> Tensor:
        """The number of draws, so that a resumed run draws what the first would have drawn."""
        return torch.tensor(self.num_draws)

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        self.num_draws = int(state)

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{super().extra_repr()}, sample_rate={self.sample_rate}"

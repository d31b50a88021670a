"""Full FC: every class takes part in every step. The baseline of the other heads."""

import torch
from torch import Tensor

from manyface.heads.base import CenterHead, Selection


class FullFC(CenterHead):
    """Margin softmax over all classes; arguments as in `CenterHead`.

    head = FullFC(num_classes=10_000, dim=512, margin=CosFace(0.4), scale=64)
    loss = head(embeddings, labels); loss.backward(); head.step(lr)
    """

    def select(self, labels: Tensor) -> Selection:
        """All classes."""
        here = self.shard.holds(labels)
        return Selection(None, torch.where(here, labels - self.shard.start, -1))

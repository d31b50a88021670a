"""Partial FC: the classes of the batch and a random sample of the others (arXiv 2203.15565).

Every class keeps its center, but a step reads, scores and updates int(sample_rate * num_classes)
of them (`sampling`). That cuts memory and time of the head by the sample rate, and makes it rarer
that two labels of one person push each other apart. As in the paper's code the softmax is over the
sample and not corrected for the sampling; the loss is therefore lower than the full FC's by about
-ln(sample_rate) where the model is undecided.

At sample_rate 1 it takes the same path (index list, gather, write-back) and equals `FullFC` bit for
bit. At 0 only the classes of the batch take part.
"""

from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.heads.base import CenterHead, HeadOptions, Selection
from manyface.heads.sampling import block_size, foreseen, sample_blocks, sample_classes, sample_size
from manyface.margins import Margin


class PartialFC(CenterHead):
    """Margin softmax over a sample of the classes.

        head = PartialFC(num_classes=10_000_000, dim=512, margin=CosFace(0.4), sample_rate=0.1)
        loss = head(embeddings, labels); loss.backward(); head.step(lr)

    Args:
        sample_rate: share of the classes that take part in a step, in [0, 1].
        block: neighbouring rows that are drawn together; None is 1 for small samples and up to 64
            for large ones.
        others: as in `CenterHead`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        margin: Margin,
        sample_rate: float = 0.1,
        block: int | None = None,
        **options: Unpack[HeadOptions],
    ) -> None:
        self.sample_rate = sample_rate
        self.sample_size = sample_size(num_classes, sample_rate)
        self.block = block_size(self.sample_size) if block is None else block
        if self.block < 1:
            raise ConfigError(f"block must be at least 1 row, got {block}")
        self._step_ahead = 0  # the last one whose rows were asked for
        super().__init__(num_classes=num_classes, dim=dim, margin=margin, **options)

    def select(self, labels: Tensor) -> Selection:
        """Positives and negatives; every forward before a step draws from the same candidates."""
        self._read_ahead()
        draw = {"size": self.sample_size, "seed": self.seed, "step": self.num_steps}
        if self.block > 1 and self.sample_size < self.num_classes:
            ids, targets = sample_blocks(
                labels, num_rows=self.num_classes, block=self.block, **draw
            )
            return Selection(ids=ids, targets=targets)
        ids = sample_classes(labels, num_classes=self.num_classes, **draw)
        return Selection(ids=ids, targets=torch.searchsorted(ids, labels))

    def _read_ahead(self) -> None:
        """Ask for the rows of the next step, once, while this one computes."""
        step = self.num_steps + 1
        if self._step_ahead == step or self.sample_size >= self.num_classes:
            return
        self._step_ahead = step
        draw = {"size": self.sample_size, "block": self.block, "seed": self.seed, "step": step}
        self.centers.read_ahead(partial(foreseen, num_rows=self.num_classes, **draw))

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{super().extra_repr()}, sample_rate={self.sample_rate}"

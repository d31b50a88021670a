"""Partial FC: the classes of the batch and a random sample of the others (arXiv 2203.15565).

Every class keeps its center, but a step reads, scores and updates int(sample_rate * num_classes)
of them, drawn by a sampler (`sampling`). That cuts memory and time of the head by the sample rate,
and makes it rarer that two labels of one person push each other apart. As in the paper's code the
softmax is over the sample and not corrected for the sampling; the loss is therefore lower than the
full FC's by about -ln(sample_rate) where the model is undecided.

At sample_rate 1 it takes the same path (index list, gather, write-back) and equals `FullFC` bit for
bit. At 0 only the classes of the batch take part.
"""

from collections.abc import Callable
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.centers import RowBlocks
from manyface.heads.base import CenterHead, HeadOptions, Selection
from manyface.heads.sampling import (
    FollowsCenters,
    RowSampler,
    SampleSpec,
    Uniform,
    sample_size,
)
from manyface.margins import Margin
from manyface.parallel import Shard


class PartialFC(CenterHead):
    """Margin softmax over a sample of the classes.

        head = PartialFC(num_classes=10_000_000, dim=512, margin=CosFace(0.4), sample_rate=0.1)
        loss = head(embeddings, labels); loss.backward(); head.step(lr)

    Args:
        sample_rate: share of the classes that take part in a step, in [0, 1].
        block: neighbouring rows that are drawn together, at most the sample; None is 1 for small
            samples and up to 64 for large ones.
        sampler: how the classes of a step are drawn, of this head alone: `Strata()`,
            `ClassBalanced(...)`, `HardNegatives(...)`; None is `Uniform(block)`.
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
        sampler: RowSampler | None = None,
        **options: Unpack[HeadOptions],
    ) -> None:
        self.sample_rate = sample_rate
        self.sample_size = sample_size(num_classes, sample_rate)
        if sampler is not None and block is not None:
            raise ConfigError("block is of the uniform sampler; give it or a sampler, not both")
        chosen = Uniform(block) if sampler is None else sampler
        chosen.check(num_classes, self.sample_size)
        self._asked_for = -1  # the last step whose rows were
        super().__init__(num_classes=num_classes, dim=dim, margin=margin, **options)
        if isinstance(chosen, nn.Module):
            chosen.to(self.centers.device)
        self.sampler: RowSampler = chosen

    def select(self, labels: Tensor) -> Selection:
        """Positives and negatives; every forward before a step draws from the same candidates."""
        if self._asked_for not in (self.num_steps, self.num_steps + 1):  # the first step
            self._ask_for(self.num_steps)
        ids, targets = self.sampler.draw(labels, self._sample_of(self.num_steps))
        return Selection(ids, targets).on(self.shard)

    def step(self, lr: float, *, grad_scale: float = 1.0) -> None:
        """As in `CenterHead`; then shows the centers to a sampler that follows them."""
        super().step(lr, grad_scale=grad_scale)
        if isinstance(self.sampler, FollowsCenters):
            with torch.no_grad(), self._full_precision():
                self.sampler.follow(
                    self.centers,
                    sub_centers=self.sub_centers,
                    step=self.num_steps - 1,
                    ranks=self.ranks,
                    shard=self.shard,
                )

    def _sample_of(self, step: int) -> SampleSpec:
        return SampleSpec(
            num_rows=self.num_classes,
            size=self.sample_size,
            seed=self.seed,
            step=step,
            order=self.row_order,
        )

    def _look_ahead(self) -> None:
        if self._asked_for != self.num_steps + 1:
            self._ask_for(self.num_steps + 1)

    def _ask_for(self, step: int) -> None:
        """Have the rows of a step read that are known before its labels."""
        self._asked_for = step
        if self.sample_size >= self.num_classes:
            return
        foreseen = partial(self.sampler.foreseen, self._sample_of(step))
        self.centers.read_ahead(partial(_rows_of, foreseen, self.shard, self.sub_centers))

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        text = f"{super().extra_repr()}, sample_rate={self.sample_rate}"
        return text if self.sampler == Uniform() else f"{text}, sampler={self.sampler}"


def _rows_of(foreseen: Callable[[], RowBlocks], shard: Shard, sub_centers: int) -> RowBlocks:
    """The rows here of the classes that are `foreseen`; not of a block that is partly elsewhere."""
    classes = foreseen()
    starts = classes.starts - shard.start
    if not shard.is_whole:
        starts = starts[(starts >= 0) & (starts + classes.size <= len(shard))]
    return RowBlocks(starts * sub_centers, classes.size * sub_centers)

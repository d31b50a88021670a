r"""Several heads over one embedding: the identities of each set of images among themselves.

Sets that may share people must not push them apart, so each set's softmax runs over its own
identities. Labels count through all heads: those of head h are [first_labels[h],
first_labels[h + 1]).

The loss is the mean over all B samples of each one's loss in its own head. A head makes the mean of
what it is given, b_h samples of all ranks, so

    loss = sum over h of (b_h / B) loss_h       and       (b_h / B) (1 / b_h) = 1 / B

is the weight of every sample: the factors b_h / B, the same on all ranks, are all there is to do. A
head hands W times the gradient of its loss to a rank's net, so that of the sum is W times the
gradient as well (docs/distributed.md, "The factor of W"), and its row gradients take in the factor
with `backward`. A head without samples in a batch makes its step as after an empty batch.

*Ranks.* Labels travel once for all heads. Then each head's collectives follow in the order of
heads, on all ranks, whichever of them have samples of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.heads.announced import Announced, Announces
from manyface.heads.base import CenterHead
from manyface.heads.checks import check_shape
from manyface.parallel import Pending, Shard


class SeveralHeads(nn.Module, Announces):
    """Heads side by side, each over its own identities; used as one of them.

    Args:
        heads: at least one, of one embedding length, device and group of ranks; each with seeds,
            margins and optimizers of its own.

    Attributes:
        first_labels: [H + 1], where the labels of each head begin.
    """

    def __init__(self, heads: Sequence[CenterHead]) -> None:
        super().__init__()
        if not heads or len({(head.dim, head.ranks.size) for head in heads}) != 1:
            raise ConfigError("several heads must be at least one, of one dim and the same ranks")
        self._heads = tuple(heads)
        self.heads = nn.ModuleList(heads)
        counts = torch.tensor([head.num_classes for head in heads])
        self.first_labels: list[int] = [0, *counts.cumsum(0).tolist()]
        self.num_classes, self.dim = self.first_labels[-1], heads[0].dim
        self.ranks = heads[0].ranks

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, scalar; 0 for an empty batch. As `CenterHead.forward`, whose
        collectives but for the labels are made by each head."""
        batch = self._batch_of(labels)
        check_shape(embeddings, batch=len(labels), dim=self.dim)
        everyone, labels = batch.all_labels(), labels.to(torch.int64)
        losses = []
        for number, head in enumerate(self._heads):
            here = self._of_head(number, labels).nonzero().squeeze(1)
            mine = labels[here] - self.first_labels[number]
            head._announced = told = self._announced_to(number, mine, everyone, batch.counts)
            share = sum(told.counts) / max(1, len(everyone))
            losses.append(head(embeddings.index_select(0, here), mine) * share)
        return torch.stack(losses).sum()

    def _of_head(self, number: int, labels: Tensor) -> Tensor:
        return (labels >= self.first_labels[number]) & (labels < self.first_labels[number + 1])

    def _announced_to(
        self, number: int, mine: Tensor, everyone: Tensor, counts: Sequence[int]
    ) -> Announced:
        """What `announce` of a head would have found, from what all ranks know already."""
        here = self._of_head(number, everyone)
        theirs = everyone[here] - self.first_labels[number]
        counted = torch.stack([part.sum() for part in torch.split(here, list(counts))])
        return Announced(mine, counted.tolist(), Pending(lambda: theirs))

    def shards(self) -> dict[str, Shard]:
        """The tensors of `state_dict` of which this rank has some rows, and which."""
        return {
            f"heads.{number}.{name}": shard
            for number, head in enumerate(self._heads)
            for name, shard in head.shards().items()
        }

    def step(self, lr: float, *, grad_scale: float = 1.0) -> None:
        """Move the rows of every head that took part."""
        for head in self._heads:
            head.step(lr, grad_scale=grad_scale)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients since the last step."""
        for head in self._heads:
            head.zero_grad(set_to_none)

    def arguments(self) -> str:
        """What must be the same on all ranks."""
        return "; ".join(head.arguments() for head in self._heads)

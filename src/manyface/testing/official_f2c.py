"""F2C's official step, restated slowly: two passes with the roll-back between them.

Source: Wang et al., CVPR 2022 (arXiv 2105.10375) and the authors' code, with clones where that code
reads a live view. Takes features, not images: what the nets do is not its concern.
"""

import torch
from torch import Tensor

from manyface.margins import Margin
from manyface.testing.lru import SequentialLRU


class OfficialPool:
    """Pool, bookkeeping and losses of the official code.

    Args:
        rows: first values of the pool, unit length, [2, Q, D]; all of them count from the start.
        margin: target cosine -> target logit.
        scale: s of the softmax; the outlier term has none.
        hard_negatives: k of the outlier term.
    """

    def __init__(self, rows: Tensor, *, margin: Margin, scale: float, hard_negatives: int) -> None:
        self.rows = rows.clone()
        self.lru = SequentialLRU(rows.shape[1])
        self.margin, self.scale, self.hard_negatives = margin, scale, hard_negatives

    def step(
        self,
        probe: tuple[Tensor, Tensor],
        gallery: tuple[Tensor, Tensor],
        labels: tuple[list[int], list[int]],
    ) -> Tensor:
        """Loss of a step; each pair is of the half batches x and y: features [n, D], labels."""
        rows, lru = self.rows.clone(), self.lru.copy()
        loss = self._pass(probe[0], labels[0], gallery[1], labels[1])
        self.rows, self.lru = rows, lru  # y was visible to x alone
        return loss + self._pass(probe[1], labels[1], gallery[0], labels[0])

    def _pass(
        self, probe: Tensor, probe_labels: list[int], gallery: Tensor, gallery_labels: list[int]
    ) -> Tensor:
        again = set()
        for label, feature in zip(gallery_labels, gallery, strict=True):
            slot, row, hit = self.lru.insert(label)
            self.rows[row, slot] = feature / feature.norm()
            if hit:
                again.add(slot)
        newest = self.rows[0].clone()
        second = newest.clone()
        for slot in again:
            second[slot] = self.rows[1, slot]
        slots = [self.lru.slot_of.get(label) for label in probe_labels]
        unit = probe / probe.norm(dim=1, keepdim=True)
        return self._loss(unit @ newest.T, slots) + self._loss(unit @ second.T, slots)

    def _loss(self, cosines: Tensor, slots: list[int | None]) -> Tensor:
        inside, outside = [], []
        for cosine, slot in zip(cosines, slots, strict=True):
            if slot is None:
                outside.append(cosine.topk(self.hard_negatives).values.clamp_min(0).mean())
            else:
                logits = cosine.clone()
                logits[slot] = self.margin(cosine[slot])
                target = torch.tensor(slot)
                inside.append(torch.nn.functional.cross_entropy(self.scale * logits, target))
        zero = cosines.sum() * 0
        return sum((torch.stack(part).mean() for part in (inside, outside) if part), zero)

"""The labels of a batch that is spread over ranks: who has how many, and what they are.

Labels are known before the backbone runs, so they travel meanwhile. A rank whose labels are refused
says so with their number: then no rank begins a step that the others would wait in.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.base.errors import LabelError
from manyface.heads.checks import check_labels
from manyface.parallel import Pending, Ranks

COUNTS, LABELS = "counts", "labels"


@dataclass(frozen=True)
class Announced:
    """Labels under way.

    Attributes:
        labels: those of this rank, as they were given.
        counts: number of labels of each rank.
    """

    labels: Tensor
    counts: list[int]
    _everyone: Pending

    def all_labels(self) -> Tensor:
        """int64 [B], rank by rank."""
        return self._everyone.wait()


def announce(labels: Tensor, *, num_classes: int, ranks: Ranks) -> Announced:
    """Check labels, integer [b] in [0, num_classes), and tell all ranks.

    Raises:
        LabelError: of this rank's labels, or on others that a rank has refused its own.
    """
    if ranks.is_alone:
        check_labels(labels, num_classes=num_classes)
        wide = labels.to(torch.int64)
        return Announced(labels, [len(labels)], Pending(lambda: wide))
    error = _problem(labels, num_classes=num_classes)
    number = 0 if error else len(labels)
    device = labels.device if isinstance(labels, Tensor) else ranks.talks_on
    told = ranks.counts(number, int(error is not None), device=device, name=COUNTS)
    if error is not None:
        raise error
    if refused := [rank for rank, (_, is_wrong) in enumerate(told) if is_wrong]:
        raise LabelError(f"rank {refused[0]} has refused the labels of its batch: see its error")
    counts = [count for count, _ in told]
    return Announced(labels, counts, ranks.gather(labels.to(torch.int64), counts, LABELS))


def _problem(labels: Tensor, *, num_classes: int) -> LabelError | None:
    try:
        check_labels(labels, num_classes=num_classes)
    except LabelError as error:
        return error
    return None

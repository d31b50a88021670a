"""The labels of a batch that is spread over ranks: who has how many, and what they are.

Labels are known before the backbone runs, so they travel meanwhile. A rank whose labels are refused
says so with their number: then no rank begins a step that the others would wait in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.base.errors import ConfigError, LabelError, ManyfaceError
from manyface.heads.checks import check_labels
from manyface.parallel import Pending, Ranks

COUNTS, LABELS, ARGUMENTS = "counts", "labels", "arguments"


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


class Announces:
    """A head that is told labels before it is given embeddings."""

    num_classes: int
    ranks: Ranks
    _announced: Announced | None = None
    _is_compared = False

    def announce(self, labels: Tensor) -> None:
        """Tell all ranks the labels of the next `forward`: before the backbone runs, or not at all.

        `forward` does it if it was not done. All-gathers of 16 bytes, and of 8 bytes a label.

        Raises:
            LabelError: a label is no integer or out of range; on all ranks, whoever has it.
        """
        self._compare_arguments()
        self._announced = announce(labels, num_classes=self.num_classes, ranks=self.ranks)

    def arguments(self) -> str:
        """What must be the same on all ranks."""
        return repr(self)

    def _compare_arguments(self) -> None:
        """Once: heads that differ would train wrongly, or wait for each other.

        Raises:
            ConfigError: they do; on all ranks.
        """
        if self._is_compared or self.ranks.is_alone:
            return
        self._is_compared = True
        texts = self.ranks.say(self.arguments(), ARGUMENTS)
        del self.ranks.sent[ARGUMENTS]  # no part of a step
        for rank, text in enumerate(texts):
            if text != texts[0]:
                raise ConfigError(
                    f"the head of rank {rank} is another than that of rank 0: {text} is not "
                    f"{texts[0]}; make all with the same arguments"
                )

    def _batch_of(self, labels: Tensor) -> Announced:
        """As it was announced, or is now."""
        batch, self._announced = self._announced, None
        if batch is None:
            self._compare_arguments()
            return announce(labels, num_classes=self.num_classes, ranks=self.ranks)
        if batch.labels is not labels and not torch.equal(batch.labels, labels.to(batch.labels)):
            raise LabelError("other labels were announced than are given now; announce these")
        return batch


def announce(labels: Tensor, *, num_classes: int, ranks: Ranks) -> Announced:
    """Check labels, integer [b] in [0, num_classes), and tell all ranks.

    Raises:
        LabelError: of this rank's labels, or on others that a rank has refused its own.
    """

    ranks.check_current()

    def measure() -> tuple[int]:
        check_labels(labels, num_classes=num_classes)
        return (len(labels),)

    counts = [count for (count,) in tell(measure, length=1, ranks=ranks)]
    return Announced(labels, counts, ranks.gather(labels.to(torch.int64), counts, LABELS))


def tell(
    measure: Callable[[], tuple[int, ...]], *, length: int, ranks: Ranks
) -> list[tuple[int, ...]]:
    """Every rank's `length` numbers about its part of a batch, once no rank refuses its part.

    An all-gather, `COUNTS`, of 8 bytes for each number and 8 more.

    Raises:
        ManyfaceError: what `measure` raises; on other ranks a LabelError that names the rank.
    """
    if ranks.is_alone:
        return [measure()]
    error, numbers = None, (0,) * length
    try:
        numbers = measure()
    except ManyfaceError as found:
        error = found
    told = ranks.counts(*numbers, int(error is not None), name=COUNTS)
    if error is not None:
        raise error
    if refused := [rank for rank, (*_, is_wrong) in enumerate(told) if is_wrong]:
        raise LabelError(f"rank {refused[0]} has refused the labels of its batch: see its error")
    return [tuple(each[:length]) for each in told]

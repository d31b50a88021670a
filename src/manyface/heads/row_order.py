"""Which row of the table is whose: large tables are shuffled, by a permutation of the seed.

Partial FC draws large samples in blocks of neighbouring rows (`sampling`), and labels that stand
side by side are often alike: one source, one family, one alphabet. So class c lies in row pi(c), pi
a computed permutation that costs no memory. It depends on the number of classes and the seed alone,
not on the head, so that a table trained by one head is read rightly by another. Small tables, whose
blocks would be single rows anyhow, lie in the order of their classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.base.permutation import Permutation
from manyface.base.random import stream_seed

SHUFFLED_FROM = 2**14


class RowOrder:
    """Class ids -> rows.

    Args:
        num_classes: N; below `SHUFFLED_FROM` a class is its row.
        seed: of the head.
        shuffled: False keeps large tables in the order of their classes too.
    """

    def __init__(self, num_classes: int, *, seed: int, shuffled: bool = True) -> None:
        self.is_shuffled = shuffled and num_classes >= SHUFFLED_FROM
        self._permutation = Permutation(num_classes, seed=stream_seed(seed, "rows"))

    def __call__(self, classes: Tensor) -> Tensor:
        """Rows int64 [n] of `classes` int64 [n], each in [0, N)."""
        if not self.is_shuffled:
            return classes
        rows = self._permutation(classes.cpu().numpy())
        return torch.from_numpy(rows).to(classes.device)

    def class_of(self, row: int) -> int:
        """The class whose row this is."""
        return self._permutation.position_of(row) if self.is_shuffled else row


@dataclass(frozen=True)
class RowLayout:
    """What rows of a saved table are: shuffled or not, and how many of them are a class."""

    is_shuffled: bool
    sub_centers: int

    def as_int(self) -> int:
        """For the state of a head, where it stands after seed and number of steps."""
        return self.is_shuffled + 2 * (self.sub_centers - 1)

    @staticmethod
    def of(state: Tensor) -> "RowLayout":
        """That of a head's extra state; the first ones had none."""
        code = int(state[2]) if len(state) > 2 else 0
        return RowLayout(bool(code & 1), (code >> 1) + 1)

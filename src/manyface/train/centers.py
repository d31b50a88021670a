"""The class centers of a run, read from its checkpoint block by block."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from manyface.base.errors import CheckpointError
from manyface.checkpoint import StoredTable, load
from manyface.heads.row_order import RowLayout, RowOrder
from manyface.train.state import unpack_groups

_WEIGHT, _EXTRA = "centers.weight", "_extra_state"


@dataclass(frozen=True)
class TrainedCenters:
    """Class centers in the order of their rows, which in large tables is not that of the classes.

    Attributes:
        num_classes: N.
        sub_centers: S, rows of each class.
    """

    num_classes: int
    sub_centers: int
    _table: Tensor | StoredTable
    _order: RowOrder

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [n S, D] of the classes at the places [start, stop), as they are stored."""
        first, last = start * self.sub_centers, stop * self.sub_centers
        if isinstance(self._table, StoredTable):
            return self._table.rows(first, last)
        return self._table[first:last]

    def class_at(self, place: int) -> int:
        """The class whose rows lie there."""
        return self._order.class_of(place)


def read_centers(checkpoint: Path) -> TrainedCenters:
    """The class centers in a checkpoint directory, all of which is verified.

    Raises:
        CheckpointError: it has none, or those of several heads.
    """
    head = unpack_groups(load(checkpoint, groups=("head",))).get("head")
    if not isinstance(head, Mapping) or _WEIGHT not in head or _EXTRA not in head:
        raise CheckpointError(
            f"{checkpoint} has no class centers of one head: F2C keeps none, and those of several "
            "heads are not compared; look through the images with `data clean PATH --model RUN`"
        )
    state, table = head[_EXTRA], head[_WEIGHT]
    layout = RowLayout.of(state)
    num_classes = table.shape[0] // layout.sub_centers
    order = RowOrder(num_classes, seed=int(state[0]) % 2**64, shuffled=layout.is_shuffled)
    return TrainedCenters(num_classes, layout.sub_centers, table, order)

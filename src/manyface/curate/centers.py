"""Identities whose class centers are alike: one person under two labels, as the head has seen it.

The Partial FC paper (arXiv 2203.15565, section 3.1) calls these inter-class conflicts.
`conflicts.py` finds them in images, with any net; here no image is read, only the head of the run
that was trained on the labels. It was taught that the two are different people, so that the cosine
of their centers is lower than that of their images would be, and a head that had long enough to
learn it by heart shows nothing: what is found is a conflict, what is not found may be one.

Every pair of classes is looked at, and the most alike are kept, exactly: N^2 / 2 products of D.
Rows are read block by block, so that memory is that of some blocks whatever N is.

The limit is not the same for two heads; where none is given it is what is unusual for a center's
nearest neighbour: the median and five deviations, as in `conflicts.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyface.base.errors import DataError, NonFiniteError
from manyface.base.progress import Progress, no_progress
from manyface.curate.conflicts import SplitIdentities, unusual
from manyface.evaluate.blocks import COLUMNS, ROWS, TopScores

# start, stop -> centers of the classes [start, stop), [n S, D] where a class has S of them.
ReadCenters = Callable[[int, int], Tensor]

MOST = 10_000
_HELD = 1 << 16  # rows that are compared with each block of others before the next are read


@dataclass(frozen=True)
class AlikeCenters:
    """Attributes:
    pairs: of classes, most alike first, above `limit`.
    limit: cosine.
    is_cut: there are more than were asked for.
    """

    pairs: SplitIdentities
    limit: float
    is_cut: bool = False


def find_alike_centers(
    read: ReadCenters,
    num_classes: int,
    *,
    sub_centers: int = 1,
    limit: float | None = None,
    most: int = MOST,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> AlikeCenters:
    """The pairs of classes whose centers have a cosine of at least `limit`, up to `most` of them.

    Args:
        read: gives rows of any length and dtype; of several centers of a class the nearest count.
        limit: None: what is unusual for nearest neighbours.
        progress: called with pairs done and pairs in all.

    Raises:
        DataError: there are fewer than two classes.
        NonFiniteError: a center is not finite.
    """
    if num_classes < 2:
        raise DataError(f"conflicts are of two classes or more, got {num_classes}")
    top = TopScores(min(most, num_classes * (num_classes - 1) // 2), device=device)
    nearest = torch.full((num_classes,), -torch.inf, device=device)
    _Scan(read, num_classes, sub_centers, device).show(top, nearest, progress)
    if limit is None:
        limit = unusual(nearest.cpu().numpy())
    cosines, first, second = top.falling()
    kept = int(np.count_nonzero(cosines >= limit))
    classes = np.stack([first[:kept], second[:kept]], axis=1).astype(np.int64)
    pairs = SplitIdentities(classes, cosines[:kept].astype(np.float32))
    return AlikeCenters(pairs, limit, is_cut=kept == most)


@dataclass(frozen=True)
class _Scan:
    read: ReadCenters
    num_classes: int
    sub_centers: int
    device: torch.device | str

    def show(self, top: TopScores, nearest: Tensor, progress: Progress) -> None:
        """Every pair of classes to `top`, once, and the highest of each class to `nearest`."""
        held, across = self._classes_in(_HELD), self._classes_in(COLUMNS)
        total, done = self.num_classes * (self.num_classes + 1) // 2, 0
        for first in range(0, self.num_classes, held):
            mine = self._unit(first, first + held)
            for start in range(first, self.num_classes, across):
                others = self._unit(start, start + across)
                self._compare(mine, others, first, start, top, nearest)
                done += len(others) * min(len(mine), start + len(others) - first)
                progress(min(done // self.sub_centers**2, total), total)

    def _classes_in(self, rows: int) -> int:
        return max(1, rows // self.sub_centers)

    def _unit(self, start: int, stop: int) -> Tensor:
        """Centers of those classes, float32 of unit length."""
        rows = self.read(start, min(stop, self.num_classes)).to(self.device).float()
        if not bool(torch.isfinite(rows).all()):
            bad = int((~torch.isfinite(rows).all(dim=1)).nonzero()[0]) // self.sub_centers
            raise NonFiniteError(
                f"center {start + bad} of the head holds NaN or infinity: take an earlier "
                "checkpoint"
            )
        return torch.nn.functional.normalize(rows, dim=1)

    def _compare(
        self,
        mine: Tensor,
        others: Tensor,
        first: int,
        start: int,
        top: TopScores,
        nearest: Tensor,
    ) -> None:
        """Classes from `first` on with those from `start` on, where the latter come after them."""
        step, end = self._classes_in(ROWS), start + len(others) // self.sub_centers
        for row in range(first, min(first + len(mine) // self.sub_centers, end - 1), step):
            place = (row - first) * self.sub_centers
            some = mine[place : place + step * self.sub_centers]
            block = self._of_classes(some @ others.T)
            after = row + len(block)
            if after > start:
                places = torch.arange(max(after, end), device=self.device)
                block.masked_fill_(places[row:after, None] >= places[start:end], -torch.inf)
            for near, dim in ((nearest[row:after], 1), (nearest[start:end], 0)):
                torch.maximum(near, block.amax(dim=dim), out=near)
            top.add(block, row, start)

    def _of_classes(self, cosines: Tensor) -> Tensor:
        """The highest of all centers of two classes, [n S, m S] -> [n, m]."""
        if self.sub_centers == 1:
            return cosines
        size = self.sub_centers
        return cosines.view(len(cosines) // size, size, -1, size).amax(dim=(1, 3))

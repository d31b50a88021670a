"""Hard negatives: the classes whose centers are nearest to those of the batch.

As in the KNN softmax of Song et al., KDD 2020, arXiv 2102.06025 (and the active classes of Zhang et
al., AAAI 2018): a list of each class's k nearest classes, made anew now and then, says which
negatives a batch needs most. Here they are a share of the sample, and the rest is uniform, so that
no class is left out for long.

*Cost.* The list takes 4 k bytes a class (k = 10: 40 MB a million). It is not made in one go, which
would take N^2 D multiplications at once, but N / R classes after each step, in turn: each list is
at most R steps old, and a step costs N^2 D / R more, S^2 times that with S centers a class. (A
batch of B against all classes is B N D, so with R = N / B it is a full FC's forward product.)
Classes not reached yet, in the first R steps, have no list and get uniform negatives. Memory of a
refresh: 1,024 x 2,048 cosines. Rows are taken as they are stored, without steps that are still to
be made up.

*Ranks.* Every rank has all lists. The rows of the classes whose turn it is are all-gathered as they
are stored, each rank finds the k nearest among its own, and the k nearest of these are everybody's.
For n classes that is an all-gather `ROWS` of the rows that the fullest rank has of them, at most
n S D numbers, and for each 1,024 of them n k cosines (`COSINES`) and n k classes of 4 bytes
(`CLASSES`).

*Resume.* A list is of the centers as they were when it was made, so it cannot be computed again; it
is a part of the head's `state_dict`.
"""

import numpy as np
import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.numeric import unit_rows, working_dtype
from manyface.centers import CenterTable, RowBlocks
from manyface.heads.checks import check_count
from manyface.heads.sampling import SampleSpec, Uniform
from manyface.parallel import ALONE, Ranks, Shard
from manyface.softmax.rows import chunk_borders

CLASSES_AT_A_TIME, _OTHERS_AT_A_TIME = 1024, 2048
_NONE = -1  # no list yet
# What collectives are called.
ROWS, COSINES, CLASSES = "rows of hard negatives", "hard cosines", "hard classes"


class HardNegatives(nn.Module):
    """The nearest classes of the batch's, and others drawn uniformly.

    Args:
        num_classes: N.
        share: of the sample that is left after the positives, the part that is hard; in [0, 1].
        neighbours: k, in [1, N); the nearest of each class of the batch come first.
        refresh_steps: R, steps in which every list is made once.

    Raises:
        ConfigError: an argument is out of range.
    """

    nearest: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        share: float = 0.5,
        neighbours: int = 10,
        refresh_steps: int = 1000,
    ) -> None:
        super().__init__()
        check_count("neighbours", neighbours)
        check_count("refresh_steps", refresh_steps)
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"share of hard negatives must be in [0, 1], got {share}")
        if neighbours >= num_classes:
            raise ConfigError(
                f"{neighbours} neighbours of a class among {num_classes}: expected "
                f"{num_classes - 1} at most"
            )
        self.share, self.refresh_steps = share, refresh_steps
        lists = torch.full((num_classes, neighbours), _NONE, dtype=torch.int32)
        self.register_buffer("nearest", lists)  # [N, k], places in the table, nearest first

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return (
            f"{len(self.nearest)}, share={self.share:g}, neighbours={self.nearest.shape[1]}, "
            f"refresh_steps={self.refresh_steps}"
        )

    def check(self, num_classes: int, size: int) -> None:
        """There must be a list for every class."""
        if len(self.nearest) != num_classes:
            raise ConfigError(
                f"HardNegatives({len(self.nearest)}, ...) cannot draw from {num_classes} classes: "
                "give it the number of classes of the head"
            )

    def draw(self, labels: Tensor, of: SampleSpec) -> tuple[Tensor, Tensor]:
        """As `RowSampler` says; hard ones count as positives for the uniform draw of the rest."""
        positives = torch.unique(labels)
        hard = self._hard(positives, int(self.share * max(of.size - len(positives), 0)))
        ids, places = Uniform().draw(torch.cat([labels, hard]), of)
        return ids, places[: len(labels)]

    def foreseen(self, of: SampleSpec) -> RowBlocks:
        """As `RowSampler` says: what is drawn uniformly."""
        return Uniform().foreseen(of)

    def follow(
        self,
        centers: CenterTable,
        *,
        sub_centers: int,
        step: int,
        ranks: Ranks = ALONE,
        shard: Shard | None = None,
    ) -> None:
        """Make the lists anew whose turn it is after step number `step`; as in `FollowsCenters`."""
        turn, num_classes = step % self.refresh_steps, len(self.nearest)
        start = turn * num_classes // self.refresh_steps
        stop = (turn + 1) * num_classes // self.refresh_steps
        for first, last in chunk_borders(stop - start, CLASSES_AT_A_TIME):
            mine = slice(start + first, start + last)
            self.nearest[mine] = nearest_classes(
                centers,
                mine,
                count=self.nearest.shape[1],
                sub_centers=sub_centers,
                ranks=ranks,
                shard=shard,
            )

    def _hard(self, positives: Tensor, budget: int) -> Tensor:
        """At most `budget` distinct classes that are near to `positives` [P] and none of them."""
        ranked = self.nearest[positives].T.flatten().cpu().numpy()  # the nearest of all first
        known = ranked[(ranked != _NONE) & ~np.isin(ranked, positives.cpu().numpy())]
        _, places = np.unique(known, return_index=True)
        chosen = known[np.sort(places)[:budget]].astype(np.int64)
        return torch.from_numpy(chosen).to(positives.device)


def nearest_classes(
    centers: CenterTable,
    mine: slice,
    *,
    count: int,
    sub_centers: int,
    ranks: Ranks = ALONE,
    shard: Shard | None = None,
) -> Tensor:
    """The `count` classes with the largest cosine to each of `mine`, int32 [n, count].

    Args:
        centers: S rows for each class here, read as they are stored; two classes are as near as the
            nearest of their centers.
        mine: places of n classes.
        count: in [1, N).
        sub_centers: S.
        ranks: that share the N classes; all get the same.
        shard: the classes here; None is all N.
    """
    if shard is None:  # an empty one is false
        shard = Shard.of(len(centers.weight) // sub_centers)
    own = _unit(_rows_of(centers, mine, sub_centers, ranks, shard))
    best, found = _nearest_here(centers, own, mine, count, sub_centers, shard)
    if ranks.is_alone:
        return found
    counts = [len(found)] * ranks.size
    cosines, classes = ranks.gather(best, counts, COSINES), ranks.gather(found, counts, CLASSES)
    _, places = _side_by_side(cosines.wait(), ranks).topk(count, dim=1)
    return _side_by_side(classes.wait(), ranks).gather(1, places)


def _nearest_here(
    centers: CenterTable, own: Tensor, mine: slice, count: int, sub_centers: int, shard: Shard
) -> tuple[Tensor, Tensor]:
    """Cosines and classes int32, [n, count], nearest first, to unit rows `own` [n S, D]; of as many
    as are here, then -inf and _NONE."""
    size = mine.stop - mine.start
    best = own.new_full((size, count), -torch.inf)
    found = torch.full((size, count), _NONE, dtype=torch.int32, device=centers.device)
    itself = torch.arange(mine.start, mine.stop, device=centers.device)[:, None]
    for start, stop in chunk_borders(len(shard), _OTHERS_AT_A_TIME):
        cosines = own @ _unit(_stored(centers, start, stop, sub_centers)).T  # [n S, m S]
        cosines = cosines.view(size, sub_centers, -1, sub_centers).amax(dim=(1, 3))  # [n, m]
        others = torch.arange(start, stop, device=centers.device) + shard.start
        cosines.masked_fill_(itself == others, -torch.inf)
        best, places = torch.cat([best, cosines], dim=1).topk(count, dim=1)
        others = others.to(torch.int32).expand(size, -1)
        found = torch.cat([found, others], dim=1).gather(1, places)
    return best, found


def _rows_of(
    centers: CenterTable, mine: slice, sub_centers: int, ranks: Ranks, shard: Shard
) -> Tensor:
    """The rows of classes `mine`, wherever they are: [n S, D] as they are stored."""
    parts = [
        _overlap(mine, Shard.of(shard.total, rank=r, size=ranks.size)) for r in range(ranks.size)
    ]
    here = parts[ranks.rank]
    rows = _stored(centers, here.start, here.stop, sub_centers)
    return ranks.gather(rows, [len(part) * sub_centers for part in parts], ROWS).wait()


def _overlap(mine: slice, shard: Shard) -> range:
    """Which classes of a shard, counted from its first, are among `mine`."""
    start, stop = max(mine.start, shard.start), min(mine.stop, shard.stop)
    return range(start - shard.start, max(stop, start) - shard.start)


def _side_by_side(values: Tensor, ranks: Ranks) -> Tensor:
    """[W n, k] of ranks one after the other as [n, W k]."""
    return values.view(ranks.size, -1, values.shape[1]).transpose(0, 1).flatten(1)


def _stored(centers: CenterTable, start: int, stop: int, sub_centers: int) -> Tensor:
    return centers.fetch(centers.weight, slice(start * sub_centers, stop * sub_centers))


def _unit(rows: Tensor) -> Tensor:
    return unit_rows(rows.to(working_dtype(rows.dtype)))[0]

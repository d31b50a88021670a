"""Which classes take part in a step of Partial FC: the positive ones and random negative ones.

The rule of Partial FC (arXiv 2203.15565, sec. 3; insightface samples the same way): of N classes,
int(sample_rate * N) take part, all classes of the batch among them, the others drawn uniformly
without replacement. If the batch has more classes than that, exactly the batch's classes take part
and there are no further negatives.

The draw costs O(sample), not O(N): it is the beginning of a permutation that is computed, not
stored, keyed by (seed, step). (insightface draws a random number per class and takes the top k;
benchmarks/head_sampling.py has both.)

Large samples are drawn in blocks of up to 64 neighbouring rows (`block_size`): 64 times fewer
draws, and rows that lie together are read and written at the speed of streaming. Which classes are
neighbours is decided by a permutation of the table's rows (`RowOrder`), not by the order of labels,
in which relatives, or photos of one source, may stand side by side.

A `RowSampler` is one way to draw: `Uniform`, `Strata` and `FullyRandom` here, `ClassBalanced` in
`balanced`, `HardNegatives` in `hard`. Ids are places of classes in the table; with one center per
class these are its rows.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.permutation import Int64Array, Permutation
from manyface.base.random import stream_seed
from manyface.centers import CenterTable, RowBlocks
from manyface.heads.row_order import RowOrder
from manyface.parallel import Ranks, Shard


@dataclass(frozen=True)
class SampleSpec:
    """What is drawn.

    Attributes:
        num_rows: N, number of classes.
        size: classes that take part, positives included; more positives than that are all.
        seed: of the stream of draws.
        step: number of the draw; the same step draws the same candidates.
        order: classes -> their places in the table.
    """

    num_rows: int
    size: int
    seed: int
    step: int
    order: RowOrder


class RowSampler(Protocol):
    """A way to choose the classes of a step; a function of labels, (seed, step) and its state."""

    def check(self, num_classes: int, size: int) -> None:
        """Raise ConfigError if it cannot draw `size` of so many classes."""

    def draw(self, labels: Tensor, of: SampleSpec) -> tuple[Tensor, Tensor]:
        """Ids int64 [K], distinct, and targets int64 [B] with ids[targets] == labels, or -1 where
        a label's class takes no part.

        Args:
            labels: int64 [B], B >= 1, places of the batch's classes.
            of: what is drawn.
        """

    def foreseen(self, of: SampleSpec) -> RowBlocks:
        """Classes that it may draw whatever the labels: all of them but for positive ones, and a
        few more; those that hang on labels are left out. May be called in a thread."""


@runtime_checkable
class FollowsCenters(Protocol):
    """A sampler that looks at the centers: a module, its state a part of the head's."""

    def follow(
        self, centers: CenterTable, *, sub_centers: int, step: int, ranks: Ranks, shard: Shard
    ) -> None:
        """After step number `step` has moved the `centers`, sub_centers rows for each class of this
        rank's `shard`; all `ranks` call it, and come to the same."""


@dataclass(frozen=True)
class Uniform:
    """Every class is as likely; drawn in blocks of neighbouring rows where the sample is large.

    Args:
        block: rows per block, at most the sample; None is `block_size` of the sample.
    """

    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise ConfigError(f"block must be at least 1 row, got {self.block}")

    def check(self, num_classes: int, size: int) -> None:
        """A block must fit into the sample, or no negative would ever be drawn."""
        if 0 < size < num_classes and self._block(size) > size:
            raise ConfigError(
                f"expected blocks of at most {size} rows, as many as are drawn of {num_classes}, "
                f"got {self.block}; take a smaller block, or leave it out"
            )

    def draw(self, labels: Tensor, of: SampleSpec) -> tuple[Tensor, Tensor]:
        """As `RowSampler` says. In blocks, K is short of the size by a block, and by the positives
        that lie in the drawn blocks anyhow: some r B of B, at a sample rate of r."""
        block = self._block(of.size)
        options = {"size": of.size, "seed": of.seed, "step": of.step}
        if block > 1 and of.size < of.num_rows:
            return sample_blocks(labels, num_rows=of.num_rows, block=block, **options)
        ids = sample_classes(labels, num_classes=of.num_rows, **options)
        return ids, torch.searchsorted(ids, labels)

    def foreseen(self, of: SampleSpec) -> RowBlocks:
        """As `RowSampler` says."""
        return foreseen(
            num_rows=of.num_rows,
            size=of.size,
            block=self._block(of.size),
            seed=of.seed,
            step=of.step,
        )

    def _block(self, size: int) -> int:
        return block_size(size) if self.block is None else self.block


@dataclass(frozen=True)
class Strata:
    """The table is cut into fixed strata, of which each draws its share, positives included.

    A stratum's draw depends on its own labels and (seed, stratum, step) alone, so it does not
    matter which rank holds it: any number of ranks that divides the number of strata draws the
    same sample, and about as many rows each: positives decide how many in all, see `Uniform.draw`,
    and a stratum that has more of them than its share takes all. Every class is still as likely, up
    to the rounding of strata.

    Args:
        count: S, at most the number of classes. The share is size // S; a stratum with more
            positives than that takes just these.
        block: rows per block, at most the share; None is `block_size` of the share.
    """

    count: int = 8
    block: int | None = None

    def __post_init__(self) -> None:
        Uniform(self.block)
        if self.count < 1:
            raise ConfigError(f"a table is cut into 1 stratum or more, got {self.count}")

    def check(self, num_classes: int, size: int) -> None:
        """Every stratum must hold a class, and a block fit into its share."""
        if self.count > num_classes:
            raise ConfigError(
                f"{self.count} strata of {num_classes} classes: expected a class in each; take "
                f"{num_classes} strata at most"
            )
        if size < num_classes:
            Uniform(self.block).check(num_classes // self.count, size // self.count)

    def borders(self, stratum: int, num_rows: int) -> tuple[int, int]:
        """Rows [start, stop) of a stratum."""
        return stratum * num_rows // self.count, (stratum + 1) * num_rows // self.count

    def draw(self, labels: Tensor, of: SampleSpec) -> tuple[Tensor, Tensor]:
        """As `RowSampler` says."""
        targets, parts, drawn = torch.empty_like(labels), [], 0
        for stratum in range(self.count):
            start, stop = self.borders(stratum, of.num_rows)
            mine = (labels >= start) & (labels < stop)
            share = self._share(stratum, of)
            ids, places = Uniform(self.block).draw(labels[mine] - start, share)
            targets[mine] = places + drawn
            parts.append(ids + start)
            drawn += len(ids)
        return torch.cat(parts), targets

    def foreseen(self, of: SampleSpec) -> RowBlocks:
        """As `RowSampler` says."""
        parts = [
            Uniform(self.block).foreseen(self._share(stratum, of)) for stratum in range(self.count)
        ]
        starts = [self.borders(stratum, of.num_rows)[0] for stratum in range(self.count)]
        moved = [part.starts + start for part, start in zip(parts, starts, strict=True)]
        return RowBlocks(np.concatenate(moved), parts[0].size)

    def _share(self, stratum: int, of: SampleSpec) -> SampleSpec:
        """What a stratum draws, its rows counted from its first."""
        start, stop = self.borders(stratum, of.num_rows)
        everything = of.size >= of.num_rows
        return SampleSpec(
            num_rows=stop - start,
            size=stop - start if everything else of.size // self.count,
            seed=stream_seed(of.seed, "stratum", stratum),
            step=of.step,
            order=of.order,
        )


@dataclass(frozen=True)
class FullyRandom:
    """Any classes, those of the batch not before others: what the 2020 paper compares with.

    A sample whose class is not drawn is pushed from those that are: its loss, ln(1 + sum_j E_ij),
    is that of a class of its own at cosine 0 which does not learn (softmax/streamed.py, stages 4
    and 5 with no rank that has the class). A penalty on its length counts as ever; running averages
    of cosines leave it out.
    """

    def check(self, num_classes: int, size: int) -> None:
        """Any number will do."""

    def draw(self, labels: Tensor, of: SampleSpec) -> tuple[Tensor, Tensor]:
        """As `RowSampler` says."""
        chosen = np.sort(_draw(of.size, of.num_rows, block=1, seed=of.seed, step=of.step))
        wanted = labels.cpu().numpy()
        targets = np.where(_contains(chosen, wanted), np.searchsorted(chosen, wanted), -1)
        return torch.from_numpy(chosen).to(labels.device), torch.from_numpy(targets).to(labels)

    def foreseen(self, of: SampleSpec) -> RowBlocks:
        """As `RowSampler` says."""
        return foreseen(num_rows=of.num_rows, size=of.size, block=1, seed=of.seed, step=of.step)


def sample_size(num_classes: int, sample_rate: float) -> int:
    """Number of classes that take part: int(sample_rate * num_classes)."""
    if not 0.0 <= sample_rate <= 1.0:
        raise ConfigError(f"sample_rate must be in [0, 1], got {sample_rate}")
    return int(sample_rate * num_classes + 1e-9)  # 0.29 * 100 is 28.999999999999996


def block_size(size: int) -> int:
    """Rows per block of a sample of `size` rows: 1 to 64, so that there are 256 blocks or more."""
    return min(64, 1 << max((size // 256).bit_length() - 1, 0))


def sample_blocks(
    labels: Tensor, *, num_rows: int, size: int, block: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Rows of a step, blocks first, then the positive ones outside of them; and places of `labels`.

    Args:
        labels: int64 [B], rows of the batch.
        num_rows: N.
        size: most rows to draw, positives included; if there are more positives, just these.
        block: rows per block.
        seed: of the stream of draws.
        step: number of the draw; the same step draws from the same permutation.

    Returns:
        ids int64 [K], distinct, and targets int64 [B] with ids[targets] == labels, on the device of
        `labels`.
    """
    wanted = labels.cpu().numpy()
    positives = np.unique(wanted)  # sorted
    count = max(size - len(positives), 0) // block
    chosen = np.sort(_draw(count, num_rows, block=block, seed=seed, step=step))  # [M], blocks
    beyond = max((int(chosen[-1]) + 1) * block - num_rows, 0) if count else 0  # of the last block
    inside = count * block - beyond
    extra = positives[~_contains(chosen, positives // block)]
    ids = np.empty(count * block + len(extra), np.int64)
    np.add.outer(chosen * block, np.arange(block), out=ids[: count * block].reshape(count, block))
    ids[inside : inside + len(extra)] = extra
    places = np.searchsorted(chosen, wanted // block) * block + wanted % block
    outside = ~_contains(chosen, wanted // block)
    places[outside] = inside + np.searchsorted(extra, wanted[outside])
    ids = ids[: inside + len(extra)]
    return torch.from_numpy(ids).to(labels.device), torch.from_numpy(places).to(labels.device)


def sample_classes(labels: Tensor, *, num_classes: int, size: int, seed: int, step: int) -> Tensor:
    """Classes of a step, int64 [max(size, distinct labels)], sorted, on the device of `labels`.

    Args:
        labels: int64 [B], classes of the batch.
        num_classes: N.
        size: classes to draw, positives included.
        seed: of the stream of draws.
        step: number of the draw; the same step draws the same candidates.
    """
    if size >= num_classes:
        return torch.arange(num_classes, device=labels.device)
    positives = np.unique(labels.cpu().numpy())  # sorted
    num_negatives = max(size - len(positives), 0)
    count = num_negatives + len(positives)
    candidates = _draw(count, num_classes, block=1, seed=seed, step=step)
    return torch.from_numpy(join_positives(positives, candidates)).to(labels.device)


def join_positives(positives: Int64Array, candidates: Int64Array) -> Int64Array:
    """Sorted ids [max(C, P)]: the positives, and the candidates that come first.

    Args:
        positives: int64 [P], sorted, distinct.
        candidates: int64 [C], distinct, in the order of the draw.
    """
    # Of C distinct candidates the first C - P are chosen; those of them that turn out to be
    # positive are made good by negatives among the others, of which there are always enough.
    num_negatives = max(len(candidates) - len(positives), 0)
    chosen, spare = np.sort(candidates[:num_negatives]), candidates[num_negatives:]
    already = _contains(chosen, positives)
    substitutes = spare[~np.isin(spare, positives)][: already.sum()]
    missing = np.sort(np.concatenate([positives[~already], substitutes]))
    return np.insert(chosen, np.searchsorted(chosen, missing), missing)


def foreseen(*, num_rows: int, size: int, block: int, seed: int, step: int) -> RowBlocks:
    """Rows that `step` may draw, whatever its labels: all of them but for positive ones, and a few
    more. Arguments as of `sample_blocks`; with block 1, of `sample_classes`."""
    count = -(-num_rows // block) if size >= num_rows else size // block
    blocks = _draw(count, num_rows, block=block, seed=seed, step=step)
    return RowBlocks(np.sort(blocks) * block, block)


def _draw(count: int, num_rows: int, *, block: int, seed: int, step: int) -> Int64Array:
    """The first `count` blocks of the permutation of `step`, int64 [count]."""
    permutation = Permutation(-(-num_rows // block), seed=stream_seed(seed, "negatives", step))
    return permutation(np.arange(count))


def _contains(table: Int64Array, values: Int64Array) -> npt.NDArray[np.bool_]:
    """Which `values` are in the sorted `table`: O(len(values)), where np.isin would sort again."""
    places = np.searchsorted(table, values)
    inside = places < len(table)
    inside[inside] = table[places[inside]] == values[inside]
    return inside

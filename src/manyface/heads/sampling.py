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
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.permutation import Int64Array, Permutation
from manyface.base.random import stream_seed
from manyface.centers import RowBlocks


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
    inside = (chosen[:, None] * block + np.arange(block)).ravel()
    inside = inside[: len(inside) - max(int(inside[-1]) + 1 - num_rows, 0)] if count else inside
    extra = positives[~_contains(chosen, positives // block)]
    places = np.searchsorted(chosen, wanted // block) * block + wanted % block
    outside = ~_contains(chosen, wanted // block)
    places[outside] = len(inside) + np.searchsorted(extra, wanted[outside])
    ids = np.concatenate([inside, extra])
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
    # Of size distinct candidates the first num_negatives are chosen; those of them that turn out to
    # be positive are made good by negatives among the others, of which there are always enough.
    count = num_negatives + len(positives)
    candidates = _draw(count, num_classes, block=1, seed=seed, step=step)
    chosen, spare = np.sort(candidates[:num_negatives]), candidates[num_negatives:]
    already = _contains(chosen, positives)
    substitutes = spare[~np.isin(spare, positives)][: already.sum()]
    missing = np.sort(np.concatenate([positives[~already], substitutes]))
    ids = np.insert(chosen, np.searchsorted(chosen, missing), missing)
    return torch.from_numpy(ids).to(labels.device)


def foreseen(*, num_rows: int, size: int, block: int, seed: int, step: int) -> RowBlocks:
    """Rows that `step` may draw, whatever its labels: all of them but for positive ones, and a few
    more. Arguments as of `sample_blocks`; with block 1, of `sample_classes`."""
    blocks = _draw(size // block, num_rows, block=block, seed=seed, step=step)
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

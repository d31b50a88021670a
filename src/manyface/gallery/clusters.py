"""Which images are of one person, when nobody says so: average linkage on a graph of neighbours.

Two groups are joined while the mean cosine of all pairs between them is at least the limit, the
most alike first (UPGMA: Sokal and Michener, "A statistical method for evaluating systematic
relationships", 1958). Of unit vectors that mean is the product of two sums, S_a . S_b / (n_a n_b),
so a group costs one vector however large it is. Only groups that have neighbours in each other are
compared: each image's `neighbours` nearest. With as many neighbours as images it is plain average
linkage, against which it is tested. One image that resembles two people joins nobody: single
linkage (connected components) would make them one. Equal embeddings, of copies of a file, are one
from the start, with their number as weight: thousands of them would all be neighbours.

The result depends on nothing but the embeddings and the limit: no seed, no order.
"""

import heapq

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.gallery.people import Float32Array, Int64Array

NEIGHBOURS = 30
_ROWS, _COLUMNS = 1024, 1 << 16


def cluster(
    embeddings: npt.NDArray[np.floating],
    *,
    limit: float,
    neighbours: int = NEIGHBOURS,
    progress: Progress = no_progress,
) -> Int64Array:
    """The group of each image, int64 [N], the largest being 0; of equals that of the first image.

    Args:
        embeddings: [N, D] of unit length, any float dtype.
        limit: the least mean cosine of two groups that are joined, -1 to 1.
        neighbours: of each image that are looked at.
        progress: told of images whose neighbours are known, and their number, copies being one.

    The neighbours take N^2 D multiplications; groups take memory of 4 D bytes an image.

    Raises:
        DataError: there are no images, or the limit is no cosine.
    """
    if not len(embeddings):
        raise DataError("there are no images to cluster")
    if not -1 <= limit <= 1:
        raise DataError(f"the limit is a cosine, -1 to 1, got {limit:g}")
    first, which, copies = _distinct(embeddings)
    rows = embeddings if len(first) == len(embeddings) else embeddings[first]
    pairs, cosines = _edges(rows, neighbours, limit, progress)
    sums = rows.astype(np.float32) * copies.astype(np.float32)[:, None]
    groups = _Groups(sums, copies, pairs, cosines, limit)
    return _by_size(groups.joined()[which])


def _distinct(embeddings: npt.NDArray[np.floating]) -> tuple[Int64Array, Int64Array, Int64Array]:
    """The first of each kind of rows, in order, int64 [U]; which of these each row is, int64 [N];
    and how many are, int64 [U]."""
    whole = np.ascontiguousarray(embeddings)
    kinds = whole.view(np.dtype((np.void, whole.shape[1] * whole.itemsize)))[:, 0]
    _, first, which, copies = np.unique(
        kinds, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[which.reshape(-1)], copies[order]


def _edges(
    embeddings: npt.NDArray[np.floating],
    neighbours: int,
    limit: float,
    progress: Progress,
) -> tuple[Int64Array, Float32Array]:
    """Pairs (i < j), int64 [E, 2], of which one is among the nearest of the other, and their
    cosines: those of at least `limit`."""
    firsts, seconds, values = [], [], []
    for start in range(0, len(embeddings), _ROWS):
        rows = torch.from_numpy(embeddings[start : start + _ROWS].astype(np.float32))
        cosines, others = _nearest(rows, start, embeddings, min(neighbours, len(embeddings) - 1))
        near = cosines >= limit
        mine = (torch.arange(len(rows)) + start)[:, None].expand_as(others)[near]
        firsts.append(torch.minimum(mine, others[near]).numpy())
        seconds.append(torch.maximum(mine, others[near]).numpy())
        values.append(cosines[near].numpy())
        progress(start + len(rows), len(embeddings))
    pairs = np.stack([np.concatenate(firsts), np.concatenate(seconds)], axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    return pairs, np.concatenate(values)[first]


def _nearest(
    rows: torch.Tensor, start: int, embeddings: npt.NDArray[np.floating], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and places [R, count] of the nearest of all to `rows` [R, D], never themselves."""
    best = torch.empty(len(rows), 0)
    places = torch.empty(len(rows), 0, dtype=torch.int64)
    for first in range(0, len(embeddings), _COLUMNS):
        part = torch.from_numpy(embeddings[first : first + _COLUMNS].astype(np.float32))
        cosines = rows @ part.T
        own = torch.arange(start - first, start - first + len(rows))
        here = torch.nonzero((own >= 0) & (own < len(part)))[:, 0]
        cosines[here, own[here]] = -2.0
        value, where = cosines.topk(min(count, len(part)))
        joined, chosen = torch.cat([best, value], 1).topk(
            min(count, best.shape[1] + value.shape[1])
        )
        best, places = joined, torch.cat([places, where + first], 1).gather(1, chosen)
    return best, places


class _Groups:
    """Groups that are joined pair by pair; a group is called by its smallest member.

    A pair in the queue counts if both groups are as they were when it was put there.
    """

    def __init__(
        self,
        sums: Float32Array,
        sizes: Int64Array,
        pairs: Int64Array,
        cosines: Float32Array,
        limit: float,
    ) -> None:
        self._sums, self._sizes, self._limit = sums, sizes, limit  # rows become sums of groups
        self._joins = np.zeros(len(sums), np.int64)  # that each has been through
        self._parent = np.arange(len(sums))
        self._near: list[set[int]] = [set() for _ in range(len(sums))]
        for one, other in pairs.tolist():
            self._near[one].add(other)
            self._near[other].add(one)
        self._queue = [
            (-cosine, one, other, 0, 0)
            for (one, other), cosine in zip(pairs.tolist(), cosines.tolist(), strict=True)
        ]
        heapq.heapify(self._queue)

    def joined(self) -> Int64Array:
        """Join until no two groups are alike enough; the name of each image's group, int64 [N]."""
        while self._queue:
            _, one, other, joins_of_one, joins_of_other = heapq.heappop(self._queue)
            if (self._joins[one], self._joins[other]) == (joins_of_one, joins_of_other):
                self._join(one, other)
        for image in range(len(self._parent)):  # a group's name is smaller than its other members
            self._parent[image] = self._parent[self._parent[image]]
        return self._parent

    def _join(self, one: int, other: int) -> None:
        """`other`, the larger name, becomes a part of `one`."""
        self._parent[other] = one
        self._sums[one] += self._sums[other]
        self._sizes[one] += self._sizes[other]
        self._joins[one] += 1
        self._joins[other] = -1  # fits no pair any more
        near = (self._near[one] | self._near[other]) - {one, other}
        for neighbour in self._near[other]:
            self._near[neighbour].discard(other)
            if neighbour != one:
                self._near[neighbour].add(one)
        self._near[one], self._near[other] = near, set()
        self._put(one, sorted(near))

    def _put(self, one: int, others: list[int]) -> None:
        """The pairs of a group that has changed."""
        if not others:
            return
        means = self._sums[others] @ self._sums[one] / (self._sizes[others] * self._sizes[one])
        joins = self._joins
        for other, mean in zip(others, means.tolist(), strict=True):
            if mean >= self._limit:
                low, high = min(one, other), max(one, other)
                heapq.heappush(self._queue, (-mean, low, high, int(joins[low]), int(joins[high])))


def _by_size(groups: Int64Array) -> Int64Array:
    """Numbers from 0, the largest group first; of equals the one whose first image comes first."""
    _, first, inverse, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[inverse.reshape(-1)]

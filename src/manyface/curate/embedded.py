"""A set as its embeddings: every image once, grouped by person, and the mean of every person.

Embeddings are kept in float16 (1 KiB an image at D = 512); sums and cosines are computed in
float32. The mean of a person without one of the images (`cosine_to_own`) is what tells a wrong
image from a right one: with it in the mean, an image always looks as if it belonged.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.progress import Progress, no_progress
from manyface.data.source import GroupedSource, Int64Array
from manyface.evaluate.embed import EmbedFunction, embed_source

Float32Array = npt.NDArray[np.float32]

_IMAGES_AT_A_TIME = 1024
_CENTERS_AT_A_TIME = 1 << 16


@dataclass(frozen=True)
class EmbeddedSet:
    """Attributes:
    vectors: float16 [N, D], of unit length, images of one person next to each other.
    starts: int64 [P + 1], first image of each person, then N.
    """

    vectors: Tensor
    starts: Int64Array

    @property
    def num_people(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> Int64Array:
        """Images of each person, int64 [P]."""
        return np.diff(self.starts)

    @cached_property
    def labels(self) -> Int64Array:
        """Person of each image, int64 [N]."""
        return np.repeat(np.arange(self.num_people), self.counts)

    def sums(self, kept: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """Sum of each person's embeddings, float32 [P, D]; of those `kept` (bool [N]) if given."""
        total = torch.zeros(self.num_people, self.vectors.shape[1])
        labels = torch.from_numpy(self.labels)
        for part in _parts(len(self.vectors), _CENTERS_AT_A_TIME):
            values = self.vectors[part].float()
            if kept is not None:
                values *= torch.from_numpy(kept[part]).unsqueeze(1)
            total.index_add_(0, labels[part], values)
        return total


def embed_set(
    embed: EmbedFunction,
    source: GroupedSource,
    *,
    progress: Progress = no_progress,
) -> EmbeddedSet:
    """All images of `source` through the net, told of as `progress(done, total)`."""
    vectors: Tensor | None = None
    for part in _parts(len(source), _IMAGES_AT_A_TIME):
        found = embed_source(embed, source, np.arange(part.start, part.stop))
        if vectors is None:
            vectors = torch.empty(len(source), found.shape[1], dtype=torch.float16)
        vectors[part] = torch.from_numpy(found).half()
        progress(part.stop, len(source))
    first, counts = source.images_of(np.arange(source.num_identities))
    return EmbeddedSet(
        torch.empty(0, 0) if vectors is None else vectors, np.append(first, first[-1] + counts[-1])
    )


def unit(rows: Tensor) -> Tensor:
    """Rows of unit length; zero rows stay zero."""
    return torch.nn.functional.normalize(rows, dim=1)


def cosine_to_own(
    images: EmbeddedSet, sums: Tensor, kept: npt.NDArray[np.bool_] | None = None
) -> Float32Array:
    """Cosine of every image to the mean of its person's other images, [N]; NaN without others.

    Args:
        sums: of `images.sums(kept)`.
    """
    found = np.empty(len(images.vectors), np.float32)
    for part in _parts(len(found), _CENTERS_AT_A_TIME):
        values = images.vectors[part].float()
        inside = values if kept is None else values * torch.from_numpy(kept[part]).unsqueeze(1)
        others = sums[torch.from_numpy(images.labels[part])] - inside
        lengths = others.norm(dim=1)
        cosines = (others * values).sum(dim=1) / lengths
        found[part] = torch.where(lengths > 1e-2, cosines, torch.nan).numpy()
    return found


def nearest_center(
    rows: Tensor,
    centers: Tensor,
    own: Int64Array | None,
    *,
    progress: Progress = no_progress,
) -> tuple[Int64Array, Float32Array]:
    """Nearest of `centers` (unit, [P, D]) to each of `rows` (unit, [N, D]) and its cosine.

    Args:
        own: int64 [N], the center of each row that does not count; None where all count.
    """
    place = np.zeros(len(rows), np.int64)
    best = np.full(len(rows), -2, np.float32)
    for part in _parts(len(rows), _IMAGES_AT_A_TIME):
        some = rows[part].float()
        mine = None if own is None else torch.from_numpy(own[part])
        for among in _parts(len(centers), _CENTERS_AT_A_TIME):
            cosines = some @ centers[among].T
            if mine is not None:
                _leave_out(cosines, mine - among.start)
            value, where = (each.numpy() for each in cosines.max(dim=1))
            closer = value > best[part]
            place[part] = np.where(closer, where + among.start, place[part])
            best[part] = np.where(closer, value, best[part])
        progress(part.stop, len(rows))
    return place, best


def _leave_out(cosines: Tensor, columns: Tensor) -> None:
    """Make the cosine of every row in its column the smallest; columns elsewhere do not matter."""
    here = torch.nonzero((columns >= 0) & (columns < cosines.shape[1]))[:, 0]
    cosines[here, columns[here]] = -2.0


def _parts(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]

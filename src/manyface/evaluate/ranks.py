"""Whom a search finds first: best mates and best others of every probe, over a gallery of any size.

A gallery comes in blocks, so a million distractors need no more room than one block. For each probe
are kept the score of its best mate (a gallery entry of the same person) and the `count` highest
scores of others.

Ties count against the net: a mate is at rank k if it scores *above* the k-th highest of the others.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.evaluate.blocks import COLUMNS, ROWS, RowTops, Unit, unit_rows
from manyface.evaluate.metrics import BoolArray

Embeddings = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
# Embeddings [n, D] and labels [n] of a part of a gallery; labels None: all are nobody's mates.
GalleryBlock = tuple[Embeddings, Labels | None]


@dataclass(frozen=True)
class Searched:
    """Attributes:
    mate: [P], the highest score of a mate; -inf where the gallery has none.
    others: [P, count], the highest scores of others, falling; -inf where there are fewer.
    num_gallery: entries seen.
    """

    mate: Unit
    others: Unit
    num_gallery: int

    @property
    def is_mated(self) -> BoolArray:
        """[P], whether the gallery holds the probe's person."""
        return np.isfinite(self.mate)

    def found(self, rank: int) -> BoolArray:
        """[P], whether the best mate is among the first `rank`."""
        if not 1 <= rank <= self.others.shape[1]:
            raise DataError(f"rank {rank} was not kept; expected 1 to {self.others.shape[1]}")
        return np.asarray(self.is_mated & (self.mate > self.others[:, rank - 1]))


def search(
    probes: Embeddings,
    labels: Labels,
    gallery: Iterable[GalleryBlock],
    *,
    ranks: Sequence[int] = (1, 5, 10),
    dtype: npt.DTypeLike = np.float32,
    device: torch.device | str = "cpu",
    look: Callable[[Tensor, int, int], None] = lambda block, probe, entry: None,
    progress: Progress = no_progress,
) -> Searched:
    """Compare every one of `probes` [P, D] with all of `gallery`.

    Args:
        labels: [P] persons, the same numbers as in the gallery.
        ranks: the largest decides how many others are kept.
        dtype: of the scores.
        look: is shown each block of scores and the probe and gallery entry of its first one; mates
            are -inf in it.
        progress: called with gallery entries done, and the same number: their end is not known.

    Raises:
        DataError: there is no probe or no gallery, lengths or dimensions differ.
        NonFiniteError: an embedding is not finite.
    """
    if len(probes) != len(labels) or not len(probes):
        raise DataError(f"{len(probes)} probes and {len(labels)} labels; expected at least one")
    rows = torch.from_numpy(unit_rows(probes, "probes", dtype=dtype)).to(device)
    mine = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
    mate = rows.new_full((len(rows),), -torch.inf)
    tops = RowTops(len(rows), max(ranks), rows)
    seen = 0
    for embeddings, people in gallery:
        if people is not None and len(people) != len(embeddings):
            raise DataError(f"{len(embeddings)} embeddings and {len(people)} labels in the gallery")
        for start in range(0, len(embeddings), COLUMNS):
            part = slice(start, start + COLUMNS)
            columns = torch.from_numpy(_gallery_part(embeddings[part], rows.shape[1], dtype))
            columns = columns.to(device)  # once, not for each block of probes
            named = None if people is None else torch.from_numpy(people[part].astype(np.int64))
            named = None if named is None else named.to(device)
            for first in range(0, len(rows), ROWS):
                block = rows[first : first + ROWS] @ columns.T
                if named is not None:
                    several = slice(first, first + ROWS)
                    _take_mates(block, mine[several], named, mate[several])
                tops.add(block, first)
                look(block, first, seen)
            seen += len(columns)
            progress(seen, seen)
    if not seen:
        raise DataError("the gallery is empty")
    return Searched(mate.cpu().numpy(), tops.scores.cpu().numpy(), seen)


def _gallery_part(embeddings: Embeddings, dim: int, dtype: npt.DTypeLike) -> Unit:
    part = unit_rows(embeddings, "gallery", dtype=dtype)
    if part.shape[1] != dim:
        raise DataError(f"probes have {dim} values, the gallery has {part.shape[1]}")
    return part


def _take_mates(block: Tensor, mine: Tensor, named: Tensor, mate: Tensor) -> None:
    """Raise `mate`, a view, to the best mates in `block`, which become -inf there."""
    rows, columns = torch.nonzero(mine.unsqueeze(1) == named, as_tuple=True)  # few
    mate.scatter_reduce_(0, rows, block[rows, columns], "amax")
    block[rows, columns] = -torch.inf

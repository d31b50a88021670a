"""Labels made wrong on purpose, to study what a head makes of it: split people and flipped photos.

The two kinds of the Partial FC paper (arXiv 2203.15565, section 4.3): *conflict*, one person under
several labels (WebFace12M-Conflict), and *flip*, photos under the label of somebody else drawn at
random (WebFace12M-Flip). Which photos they meet is a function of (seed, photo) alone.

First people are split: a chosen person's photos, in a random order, are dealt to as many labels as
asked for, or one for each photo where there are fewer. Then photos are flipped to any other label.
A label whose photos have all gone elsewhere is no label any more.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import DataError
from manyface.base.random import hash_uint64, hash_uniform
from manyface.data.records.table import LazyStrings
from manyface.data.source import GroupedSource, Int64Array, check_records

_SPLIT, _DEAL, _FLIP, _TARGET = range(4)  # lanes of the hash


class _NamesOf(LazyStrings):
    """Of each label the name of its person."""

    def __init__(self, names: Sequence[str], person: Int64Array) -> None:
        self._names, self._person = names, person

    def __len__(self) -> int:
        return len(self._person)

    def _string(self, index: int) -> str:
        return self._names[int(self._person[index])]


class NoisyLabels:
    """A `GroupedSource` of the images of `source` under partly wrong labels.

    Takes 24 bytes an image. Records are renumbered, so that those of a label stay neighbours.

    Args:
        source: with right labels.
        split: share of people whose images are dealt to several labels, in [0, 1].
        parts: labels of each of them, at least 2.
        flip: share of images that get the label of somebody else, in [0, 1].
        seed: of all draws.
    """

    def __init__(
        self,
        source: GroupedSource,
        *,
        split: float = 0.0,
        parts: int = 3,
        flip: float = 0.0,
        seed: int = 0,
    ) -> None:
        true = source.labels(np.arange(len(source)))
        labels, self._person = _split(true, share=split, parts=parts, seed=seed)
        labels = _flipped(labels, len(self._person), share=flip, seed=seed)
        kept, labels = np.unique(labels, return_inverse=True)
        self._person = self._person[kept]  # [L], whose label each is
        self._records = np.argsort(labels, kind="stable")  # [n], of the source
        self._places = np.empty_like(self._records)
        self._places[self._records] = np.arange(len(true))
        counts = np.bincount(labels, minlength=len(kept))
        self._starts = np.concatenate([[0], np.cumsum(counts)])  # [L + 1]
        self.source, self.image_size = source, source.image_size
        self.name = f"{source.name}, with wrong labels"
        self.num_identities = len(kept)
        self.identity_names: Sequence[str] = _NamesOf(source.identity_names, self._person)

    def __len__(self) -> int:
        return len(self._records)

    def labels(self, indices: Int64Array) -> Int64Array:
        """The label of each record, int64 [B]."""
        return np.searchsorted(self._starts, self._checked(indices), side="right") - 1

    def people(self, indices: Int64Array) -> Int64Array:
        """Whom each record truly shows, as the source numbers people: int64 [B]."""
        return self.source.labels(self._records[self._checked(indices)])

    def person_of(self, labels: Int64Array) -> Int64Array:
        """Whose label each was before photos were flipped: int64 [B]."""
        return self._person[labels]

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """First record and number of images of each label, int64 [B] each."""
        first = self._starts[identities]
        return first, self._starts[identities + 1] - first

    def load(self, indices: Int64Array, out: torch.Tensor | None = None) -> torch.Tensor:
        """int64 [B] -> uint8 [B, S, S, 3], in `out` if it is given."""
        return self.source.load(self._records[self._checked(indices)], out)

    def from_storage(self, places: Int64Array) -> Int64Array:
        """Records that lie at `places` of the storage, int64 [B]."""
        return self._places[self.source.from_storage(places)]

    def will_read(self, indices: Int64Array) -> None:
        """Hint: these records will be asked for soon."""
        self.source.will_read(self._records[self._checked(indices)])

    def _checked(self, indices: Int64Array) -> Int64Array:
        check_records(indices, len(self))
        return indices


def _split(
    people: Int64Array, *, share: float, parts: int, seed: int
) -> tuple[Int64Array, Int64Array]:
    """Label of each image, int64 [n], and person of each label, int64 [L]."""
    counts = np.bincount(people)
    everyone = np.arange(len(counts))
    chosen = hash_uniform(seed, everyone, lane=_SPLIT) < share
    labels_of = np.where(chosen, np.minimum(np.maximum(counts, 1), parts), 1)  # [N]
    first = np.concatenate([[0], np.cumsum(labels_of)])
    turn = _turns(people, hash_uint64(seed, np.arange(len(people)), lane=_DEAL))
    return first[people] + turn % labels_of[people], np.repeat(everyone, labels_of)


def _turns(people: Int64Array, order: npt.NDArray[np.uint64]) -> Int64Array:
    """Place of each image among those of its person, who are put in this order: int64 [n]."""
    sorted_images = np.lexsort((order, people))
    counts = np.bincount(people)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    turns = np.empty_like(people)
    turns[sorted_images] = np.arange(len(people)) - np.repeat(starts, counts)
    return turns


def _flipped(labels: Int64Array, num_labels: int, *, share: float, seed: int) -> Int64Array:
    """The labels with a share of them changed to any other, each as likely."""
    if share > 0 and num_labels < 2:
        raise DataError("photos cannot be given to somebody else: there is one person only")
    images = np.arange(len(labels))
    wrong = hash_uniform(seed, images, lane=_FLIP) < share
    drawn = hash_uint64(seed, images[wrong], lane=_TARGET) % np.uint64(max(num_labels - 1, 1))
    found = labels.copy()
    found[wrong] = (labels[wrong] + 1 + drawn.astype(np.int64)) % num_labels
    return found

"""Inter-class conflicts: one person under two labels, images under the label of another person.

The Partial FC paper (arXiv 2203.15565, section 3.1 and figure 3) shows what they do: a conflicting
class is a negative that must not be pushed away, and sampling helps because it pushes less. Here
they are found, with a net that was trained on anything.

No cosine means the same for two nets, so limits are measured on the set itself
(`measure_thresholds`), most of which is taken to be right:

    same_person   people's images are dealt into two halves: how alike are the halves' means
    belongs       how alike is an image to the mean of its person's other images
    by_chance     how alike are an image and the mean of a person drawn at random

Of the first two the limit is the value that nine of ten exceed; of the third, that one of a hundred
does. Nearest neighbours among many people are alike by chance too, so the first two limits are also
kept above what is usual for nearest neighbours in this set: their median and five deviations
(1.4826 times the median absolute one), which a few true conflicts do not move. To a net that tells
people badly apart many images look like strangers; what is usual in the set is none, so the third
limit is kept below the median of images to their own person by five deviations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import DataError
from manyface.base.progress import Progress
from manyface.curate.embedded import (
    EmbeddedSet,
    Float32Array,
    cosine_to_own,
    nearest_center,
    unit,
)
from manyface.data.source import Int64Array

_FOUND_SHARE = 0.1
_CHANCE = 0.99
_DEVIATIONS = 5.0
_MARGIN = 0.05  # by how much an image must be nearer to another person
_NUM_RANDOM = 100_000
_FEWEST = 20


def _nothing_shown(part: str) -> Progress:
    return lambda done, total: None


@dataclass(frozen=True)
class Thresholds:
    """Cosines; see the top of the file."""

    same_person: float
    belongs: float
    by_chance: float


@dataclass(frozen=True)
class WrongLabels:
    """Images that are nearer to another person than to their own: all [n].

    Attributes:
        records: int64, the images.
        people: int64, to whom they are nearest.
        to_own, to_other: cosines; to_own is NaN for a person's only image.
    """

    records: Int64Array
    people: Int64Array
    to_own: Float32Array
    to_other: Float32Array


@dataclass(frozen=True)
class Strangers:
    """Images that are like nobody here, their own person included: records, cosines, [n]."""

    records: Int64Array
    to_own: Float32Array


@dataclass(frozen=True)
class SplitIdentities:
    """Pairs of labels that are one person, most alike first: int64 [n, 2], cosines [n]."""

    people: Int64Array
    cosines: Float32Array


@dataclass(frozen=True)
class Conflicts:
    """All that was found, and the limits."""

    wrong_labels: WrongLabels
    strangers: Strangers
    split: SplitIdentities
    thresholds: Thresholds


def find_conflicts(
    images: EmbeddedSet,
    *,
    same_person: float | None = None,
    belongs: float | None = None,
    show: Callable[[str], Progress] = _nothing_shown,
    seed: int = 0,
) -> Conflicts:
    """Conflicts of the set; limits that are not given are measured.

    Args:
        show: makes the display of one part of the work.

    Cost: N P + P^2 / 2 products of two embeddings for N images of P people.
    """
    measured = measure_thresholds(images, same_person=same_person, seed=seed)
    kept = _kept(images, measured)
    sums = images.sums(kept)
    centers = unit(sums)
    everyone = np.arange(images.num_people)
    nearest, alike = nearest_center(
        centers, centers, everyone, progress=show("comparing people of")
    )
    other, to_other = nearest_center(
        images.vectors, centers, images.labels, progress=show("comparing images of")
    )
    to_own = cosine_to_own(images, sums, kept)
    limits = Thresholds(
        same_person=max(measured.same_person, unusual(alike))
        if same_person is None
        else same_person,
        belongs=max(measured.belongs, unusual(to_other)) if belongs is None else belongs,
        by_chance=min(measured.by_chance, unusual(to_own, sign=-1)),
    )
    split = _split(centers, nearest, alike, limits)
    wrong = _wrong_labels(images, other, to_other, to_own, split, limits)
    return Conflicts(wrong, _strangers(to_own, wrong, limits), split, limits)


def measure_thresholds(
    images: EmbeddedSet, *, same_person: float | None = None, seed: int = 0
) -> Thresholds:
    """The limits that the set itself gives; `same_person` where that is known.

    Raises:
        DataError: it is not, and fewer than 20 people have four images; or there is one person.
    """
    if images.num_people < 2:
        raise DataError(
            f"one person only ({len(images.vectors)} images): there is nobody to compare with; "
            "give a set of two people or more"
        )
    rng = np.random.default_rng(seed)
    if same_person is None:
        same_person = float(np.quantile(_halves(images, rng), _FOUND_SHARE))
    centers = unit(images.sums())
    to_own = cosine_to_own(images, images.sums())
    return Thresholds(
        same_person=same_person,
        belongs=_quantile(to_own, _FOUND_SHARE),
        by_chance=float(np.quantile(_random(images, centers, rng), _CHANCE)),
    )


def _halves(images: EmbeddedSet, rng: np.random.Generator) -> Float32Array:
    """Cosine of the means of two random halves of the images of people with four or more, [n]."""
    people = np.flatnonzero(images.counts >= 4)
    if len(people) < _FEWEST:
        raise DataError(
            f"{len(people)} people have 4 images or more; {_FEWEST} are needed to measure how "
            "alike two labels of one person are; give a limit of your own"
        )
    halves = np.zeros(len(images.vectors), np.int64)
    for person in people.tolist():
        start, end = images.starts[person : person + 2]
        halves[start:end] = rng.permutation(end - start) % 2
    first, second = (unit(images.sums(halves == half))[people] for half in (0, 1))
    found: Float32Array = (first * second).sum(dim=1).numpy()
    return found


def _random(images: EmbeddedSet, centers: Tensor, rng: np.random.Generator) -> Float32Array:
    """Cosines of images to people drawn at random, never their own."""
    records = rng.integers(0, len(images.vectors), _NUM_RANDOM)
    ahead = rng.integers(1, images.num_people, _NUM_RANDOM)
    people = (images.labels[records] + ahead) % images.num_people
    pairs = images.vectors[torch.from_numpy(records)].float() * centers[torch.from_numpy(people)]
    found: Float32Array = pairs.sum(dim=1).numpy()
    return found


def _quantile(cosines: Float32Array, share: float) -> float:
    """NaN does not count; above all cosines where there is nothing else."""
    known = cosines[~np.isnan(cosines)]
    return float(np.quantile(known, share)) if len(known) else np.inf


def _kept(images: EmbeddedSet, limits: Thresholds) -> npt.NDArray[np.bool_]:
    """Images that may speak for their person: a stranger must not draw the mean to itself."""
    to_own = cosine_to_own(images, images.sums())
    fits = ~(to_own < limits.by_chance)
    alone = np.add.reduceat(fits, images.starts[:-1]) == 0
    kept: npt.NDArray[np.bool_] = fits | alone[images.labels]
    return kept


def unusual(cosines: Float32Array, *, sign: int = 1) -> float:
    """What hardly any is above (sign 1) or below (-1); NaN does not count."""
    if np.isnan(cosines).all():  # nobody has two images
        return -np.inf
    middle = float(np.nanmedian(cosines))
    deviation = 1.4826 * float(np.nanmedian(np.abs(cosines - middle)))
    return middle + sign * _DEVIATIONS * deviation


def _split(
    centers: Tensor, nearest: Int64Array, alike: Float32Array, limits: Thresholds
) -> SplitIdentities:
    found = np.flatnonzero(alike >= limits.same_person)
    pairs = np.sort(np.stack([found, nearest[found]], axis=1), axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    cosines = alike[found[first]]
    order = np.argsort(-cosines, kind="stable")
    return SplitIdentities(pairs[order], cosines[order])


def _wrong_labels(
    images: EmbeddedSet,
    other: Int64Array,
    to_other: Float32Array,
    to_own: Float32Array,
    split: SplitIdentities,
    limits: Thresholds,
) -> WrongLabels:
    nearer = (to_other >= limits.belongs) & ~(to_own + _MARGIN >= to_other)
    # Of two labels that are one person, images are near to both; a person's only image is the
    # person: if it is like another, the labels are the conflict.
    ones = {(int(a), int(b)) for a, b in np.concatenate([split.people, split.people[:, ::-1]])}
    records = [
        record
        for record in np.flatnonzero(nearer & (images.counts[images.labels] > 1)).tolist()
        if (int(images.labels[record]), int(other[record])) not in ones
    ]
    chosen = np.array(records, np.int64)
    order = chosen[np.argsort(to_own[chosen] - to_other[chosen], kind="stable")]
    return WrongLabels(order, other[order], to_own[order], to_other[order])


def _strangers(to_own: Float32Array, wrong: WrongLabels, limits: Thresholds) -> Strangers:
    strange = to_own < limits.by_chance
    strange[wrong.records] = False
    records = np.flatnonzero(strange)
    order = records[np.argsort(to_own[records], kind="stable")]
    return Strangers(order, to_own[order])

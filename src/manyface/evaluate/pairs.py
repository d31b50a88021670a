"""Sets of image pairs to verify: drawn from any source, or read from an LFW list or a .bin file.

The first two give the LFW shape: half of the pairs show one person, half two, split into folds so
that thresholds are chosen on pairs other than those they are judged on.
"""

import unicodedata
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.data.lists import read_pairs
from manyface.data.source import ImageSource

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

# Rounds of drawing before a fold is said to be too small for the pairs asked of it.
_MAX_ROUNDS = 64


class NumberedSource(ImageSource, Protocol):
    """A source whose images have the names by which LFW lists call them."""

    def index_of(self, name: str, number: int) -> int:
        """Index of image `number` of person `name`; DataError if there is none."""
        ...


@dataclass(frozen=True)
class PairSet:
    """P pairs of images of `source`: indices, truth and fold of each.

    `names_people` is False where the labels of `source` tell no more than the pairs do; `is_bin`
    says that the pairs have the order of a .bin, which is scored by insightface's rule too. `first`
    is known where images of `source` may be equal: of each, the first that has the same bytes.
    """

    name: str
    source: ImageSource
    left: IntArray  # [P] image index in `source`
    right: IntArray  # [P]
    same: BoolArray  # [P]
    fold: IntArray  # [P]
    names_people: bool = True
    is_bin: bool = False
    first: IntArray | None = None  # [images of source]

    def __len__(self) -> int:
        return len(self.same)

    @property
    def distinct(self) -> tuple[IntArray, IntArray]:
        """`left` and `right`, each [P], but of equal images the first: one has to be embedded."""
        if self.first is None:
            return self.left, self.right
        return self.first[self.left], self.first[self.right]

    def identities(self) -> tuple[IntArray, IntArray]:
        """The labels of the left and of the right images, each [P]."""
        return self.source.labels(self.left), self.source.labels(self.right)

    def identity_names(self) -> list[str]:
        """Names of the people who appear in a pair, for `identity_overlap`; [] if unknown."""
        if not self.names_people:
            return []
        labels = np.unique(np.concatenate(self.identities()))
        return [str(self.source.identity_names[int(label)]) for label in labels]


def synthetic_pairs(
    source: ImageSource, *, num_pairs: int, folds: int = 10, seed: int, name: str = "synthetic"
) -> PairSet:
    """Draw `num_pairs` distinct pairs, half same and half different, from the people of `source`.

    Folds are of equal size and balance and share no person, as in LFW's View 2. Both images of
    every pair are drawn uniformly among the images of their person, so pose and light of same and
    different pairs follow one distribution. A pure function of (source labels, arguments).
    """
    per_fold, rest = divmod(num_pairs, 2 * folds)
    if folds < 2 or per_fold < 1 or rest:
        raise DataError(
            f"num_pairs must be a multiple of 2 x folds with folds >= 2 "
            f"(as many same as different pairs in each fold), got {num_pairs} pairs, {folds} folds"
        )
    generator = numpy_generator(seed, "pairs")
    images = _ImagesOfPeople(source)
    people = generator.permutation(np.flatnonzero(images.counts > 0))
    drawn: list[tuple[IntArray, bool, int]] = []
    for fold, members in enumerate(np.array_split(people, folds)):
        for same in (True, False):
            pairs = _draw_distinct(generator, images, members, count=per_fold, same=same)
            drawn.append((pairs, same, fold))
    left, right = np.concatenate([pairs for pairs, _, _ in drawn]).T
    return PairSet(
        name=name,
        source=source,
        left=np.ascontiguousarray(left),
        right=np.ascontiguousarray(right),
        same=np.repeat([same for _, same, _ in drawn], per_fold),
        fold=np.repeat(np.array([fold for _, _, fold in drawn], dtype=np.int64), per_fold),
    )


def lfw_pairs(source: NumberedSource, text: str, *, folds: int = 10, name: str = "lfw") -> PairSet:
    """The pairs of an LFW list (`pairs.txt`, `pairsDevTest.txt`) as images of `source`.

    A list with folds of its own (View 2) keeps them. One without (the View 1 lists) is cut, in the
    order of the list, into `folds` runs of same and of different pairs each.
    """
    listed = read_pairs(text)
    same = np.asarray(listed.same, dtype=bool)
    fold = np.asarray(listed.fold, dtype=np.int64)
    if len(np.unique(fold)) < 2:
        fold = folds_in_order(same, folds)
    left, right = _indices(source, listed.left), _indices(source, listed.right)
    if len(alone := np.flatnonzero(left == right)):
        person, number = listed.left[int(alone[0])]
        raise DataError(
            f"{name}: pair {alone[0] + 1} is image {number} of {person} and itself, which any net "
            "gets right; take it out of the list"
        )
    return PairSet(name, source, left, right, same, fold)


def bin_pairs(
    source: ImageSource,
    same: BoolArray,
    *,
    folds: int = 10,
    name: str,
    first: IntArray | None = None,
) -> PairSet:
    """The pairs of a verification set: images 2i and 2i + 1 of `source` are pair i.

    Args:
        same: bool [P].
        folds: runs of neighbouring pairs, in the order of the set; sizes differ by one at most.
        first: as in `PairSet`.
    """
    if len(same) < folds:
        raise DataError(f"{name} has {len(same)} pairs, too few for {folds} folds; use fewer folds")
    numbers = np.arange(len(same), dtype=np.int64)
    sizes = [len(part) for part in np.array_split(numbers, folds)]
    fold = np.repeat(np.arange(folds, dtype=np.int64), sizes)
    left, right = 2 * numbers, 2 * numbers + 1
    return PairSet(name, source, left, right, same, fold, False, is_bin=True, first=first)


def _indices(source: NumberedSource, images: list[tuple[str, int]]) -> IntArray:
    # Sources spell names in Unicode form NFC; a list may have been typed elsewhere.
    found = [source.index_of(unicodedata.normalize("NFC", name), k) for name, k in images]
    return np.array(found, dtype=np.int64)


class _ImagesOfPeople:
    """Which images of a source show which label; images of one label keep the source's order."""

    def __init__(self, source: ImageSource) -> None:
        labels = source.labels(np.arange(len(source), dtype=np.int64))
        self.order = np.argsort(labels, kind="stable")
        self.counts = np.bincount(labels, minlength=source.num_identities)
        self.starts = np.cumsum(self.counts) - self.counts

    def drawn(self, generator: np.random.Generator, labels: IntArray) -> IntArray:
        """One image of each label, uniformly."""
        positions = self.starts[labels] + generator.integers(self.counts[labels])
        return np.asarray(self.order[positions], dtype=np.int64)


def _draw_distinct(
    generator: np.random.Generator,
    images: _ImagesOfPeople,
    members: IntArray,
    *,
    count: int,
    same: bool,
) -> IntArray:
    """`count` distinct unordered pairs [count, 2] among the people `members`."""
    usable = members[images.counts[members] > 1] if same else members
    if len(usable) < (1 if same else 2):
        raise DataError(
            f"a fold has {len(members)} people, {len(usable)} of them usable, too few for "
            f"{'same' if same else 'different'} pairs: use fewer folds, or more people and images"
        )
    if count > (possible := _num_pairs(images.counts[usable], same=same)):
        raise DataError(
            f"a fold of {len(members)} people has {possible} distinct "
            f"{'same' if same else 'different'} pairs, {count} were asked for: "
            "use fewer pairs, or more people and images"
        )
    found = np.zeros((0, 2), dtype=np.int64)
    for _ in range(_MAX_ROUNDS):
        people = usable[_spread_evenly(generator, len(usable), count)]
        others = people if same else usable[generator.integers(len(usable), size=count)]
        pairs = np.stack([images.drawn(generator, people), images.drawn(generator, others)], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1] if same else people != others]
        found = _first_of_each(np.concatenate([found, pairs]))
        if len(found) >= count:
            return found[:count]
    raise DataError(
        f"a fold of {len(members)} people gives {len(found)} distinct "
        f"{'same' if same else 'different'} pairs, {count} were asked for: "
        "use fewer pairs, or more people and images"
    )


def _num_pairs(counts: IntArray, *, same: bool) -> int:
    """Unordered pairs of images of people with `counts` [n] images each."""
    total, squares = int(counts.sum()), int((counts * counts).sum())
    return (squares - total) // 2 if same else (total * total - squares) // 2


def _spread_evenly(generator: np.random.Generator, size: int, count: int) -> IntArray:
    """`count` members of [0, size), shuffled, each as often as any other give or take one."""
    rounds = -(-count // size)
    return np.concatenate([generator.permutation(size) for _ in range(rounds)])[:count]


def _first_of_each(pairs: IntArray) -> IntArray:
    """Drop repeats of a pair in either order, keeping the first."""
    _, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return pairs[np.sort(first)]


def folds_in_order(same: BoolArray, folds: int) -> IntArray:
    """Fold of each pair [P]: runs of neighbours, of same and of different pairs alike."""
    fold = np.zeros(len(same), dtype=np.int64)
    for kind in (True, False):
        members = np.flatnonzero(same == kind)
        if len(members) < folds:
            raise DataError(
                f"{len(members)} {'same' if kind else 'different'} pairs cannot fill {folds} "
                "folds; use fewer folds"
            )
        fold[members] = np.arange(len(members)) * folds // len(members)
    return fold

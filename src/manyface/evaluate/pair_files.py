"""Verification sets as files: what is in a .bin, and from records or into a folder of persons.

A .bin has no folds of its own: readers cut it into runs of equal length. So pairs are written fold
by fold, same pairs before different ones as they come, and each fold is one of those runs.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError, WriteError
from manyface.base.files import write_whole
from manyface.base.progress import Progress, no_progress
from manyface.data.bin_file import VerificationSet
from manyface.data.decode import UnreadableImageError, decode_whole
from manyface.data.lists import PairList, write_pairs
from manyface.data.records import Records
from manyface.data.records.base import person_of
from manyface.data.records.naming import number_at_end
from manyface.evaluate.pairs import PairSet

LIST = "pairs.txt"
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"RI": ".webp"}


@dataclass(frozen=True)
class Survey:
    """What decoding all images of a verification set has shown.

    Attributes:
        sizes: number of images of each (width, height).
        unreadable: (image, reason) of the others.
        num_distinct: images that differ in their bytes.
    """

    sizes: Counter[tuple[int, int]]
    unreadable: list[tuple[int, str]]
    num_distinct: int


def survey(pairs: VerificationSet, *, progress: Progress = no_progress) -> Survey:
    """Decode every image of `pairs`."""
    found = Survey(Counter(), [], len(set(pairs.images)))
    for index, image in enumerate(pairs.images):
        try:
            height, width = decode_whole(image).shape[:2]
            found.sizes[width, height] += 1
        except UnreadableImageError as error:
            found.unreadable.append((index, str(error)))
        progress(index + 1, len(pairs.images))
    return found


def pack(pairs: PairSet, records: Records, *, progress: Progress = no_progress) -> VerificationSet:
    """The pairs of `records` with their bytes as they are, fold by fold.

    Raises:
        DataError: an image cannot be decoded; it would end every evaluation.
    """
    order = np.argsort(pairs.fold, kind="stable")
    chosen = np.stack([pairs.left[order], pairs.right[order]], axis=1).ravel()  # [2P]
    images: dict[int, bytes] = {}  # each once in memory and, as pickles share, in the file
    for done, index in enumerate(chosen.tolist(), start=1):
        if index not in images:
            images[index] = _checked(records, index)
        progress(done, len(chosen))
    return VerificationSet([images[index] for index in chosen.tolist()], pairs.same[order])


def name_pairs(pairs: PairSet, records: Records) -> PairList:
    """The pairs of `records` as LFW lists call them: name of the person, number of the image.

    Raises:
        DataError: a file has no number at the end of its name, or shares it with another one.
    """
    order = np.argsort(pairs.fold, kind="stable")
    called = {
        int(index): _called(records, int(index))
        for index in np.unique(np.concatenate([pairs.left, pairs.right]))
    }
    left, right = (
        [called[int(index)] for index in side[order]] for side in (pairs.left, pairs.right)
    )
    return PairList(left, right, pairs.same[order], pairs.fold[order])


def unpack(
    pairs: VerificationSet, folder: str | Path, *, folds: int = 10, progress: Progress = no_progress
) -> None:
    """Write the images as a folder of persons, and the list of pairs (`pairs.txt`) with it.

    A person is what a pair tells: both images of a same pair, or one of a different pair.

    Raises:
        DataError: the folder holds something, or the pairs make no LFW list.
        WriteError: it cannot be written.
    """
    root = Path(folder).expanduser()
    listed = _named_by_pair(pairs, folds)
    text = write_pairs(listed)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if next(root.iterdir(), None) is not None:  # no link in it leads elsewhere
            raise DataError(f"{root} is not empty; give a folder that is new")
        places = [place for pair in zip(listed.left, listed.right, strict=True) for place in pair]
        for done, (image, (person, number)) in enumerate(
            zip(pairs.images, places, strict=True), start=1
        ):
            target = root / person / f"{person}_{number:04d}{_SUFFIXES.get(image[:2], '.jpg')}"
            target.parent.mkdir(exist_ok=True)
            write_whole(target, image)
            progress(done, len(pairs.images))
        write_whole(root / LIST, text.encode())
    except OSError as error:
        raise WriteError(error.filename or root, error) from error


def _named_by_pair(pairs: VerificationSet, folds: int) -> PairList:
    left: list[tuple[str, int]] = []
    right: list[tuple[str, int]] = []
    for number, same in enumerate(pairs.same.tolist()):
        name = f"pair_{number:06d}"
        left.append((name if same else f"{name}_left", 1))
        right.append((name, 2) if same else (f"{name}_right", 1))
    # A list has an even number of pairs in each fold; what cannot be cut so has one fold.
    per_fold = len(pairs) // folds if len(pairs) % (2 * folds) == 0 else len(pairs)
    return PairList(left, right, pairs.same, np.arange(len(pairs)) // per_fold)


def _checked(records: Records, index: int) -> bytes:
    try:
        image = records.read(index)
        decode_whole(image)
    except (OSError, UnreadableImageError) as error:
        raise DataError(
            f"{records.describe(index)}: {error}; take it out first (manyface data check)"
        ) from None
    return image


def _called(records: Records, index: int) -> tuple[str, int]:
    person = person_of(records.first_images, index)
    first, end = records.first_images[person : person + 2].tolist()
    number = number_at_end(records.file_name(index))
    numbers = [number_at_end(records.file_name(other)) for other in range(first, end)]
    if not number or numbers.count(number) > 1:
        raise DataError(
            f"{records.describe(index)}: its name does not end in a number of its own, by which "
            "lists call images; write a .bin instead"
        )
    return records.identity_names[person], number

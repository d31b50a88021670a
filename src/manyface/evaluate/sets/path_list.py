"""Lists of pairs by paths: two images and whether they show one person.

    images/1.jpg<TAB>images/2.jpg<TAB>1          1 the same, 0 (or -1) not; TAB, comma or blank
    images/1.jpg<TAB>images/3.jpg<TAB>0<TAB>4    fold, if every line has one

Paths are relative to a folder. Lines that begin with "#" and empty lines are skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError
from manyface.evaluate.metrics import BoolArray, IntArray

_ANSWERS = {"1": True, "0": False, "-1": False}


@dataclass(frozen=True)
class PathPairs:
    """Attributes:
    paths: the distinct images.
    left, right: int64 [P], which of them.
    same: bool [P].
    fold: int64 [P], or None where the list has none.
    """

    paths: list[str]
    left: IntArray
    right: IntArray
    same: BoolArray
    fold: IntArray | None


def read_path_pairs(text: str, path: Path) -> PathPairs:
    """Of the list `text`, which came from `path`.

    Raises:
        DataError: a line that cannot be meant, a pair that is there twice, no pairs, folds in some
            lines only.
    """
    numbers: dict[str, int] = {}
    seen: dict[tuple[int, int], int] = {}
    pairs: list[tuple[int, int]] = []
    same, folds = [], []
    for line, fields in _lines(text):
        one, other, answer, fold = _fields(fields, line, path)
        pair = (numbers.setdefault(one, len(numbers)), numbers.setdefault(other, len(numbers)))
        first = seen.setdefault((min(pair), max(pair)), line)
        if first != line:
            raise DataError(f"{path}, line {line}: the pair of line {first} again; remove one")
        pairs.append(pair)
        same.append(answer)
        folds.append(fold)
    if not pairs:
        raise DataError(f"{path} has no pairs: expected lines of path, path, 1 or 0")
    left, right = np.array(pairs, np.int64).T
    return PathPairs(list(numbers), left, right, np.array(same), _all_or_none(folds, path))


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            separator = next((sign for sign in "\t," if sign in line), None)
            yield number, [part.strip() for part in line.split(separator)]


def _fields(fields: list[str], line: int, path: Path) -> tuple[str, str, bool, int | None]:
    if len(fields) in (3, 4) and fields[2] in _ANSWERS and all(fields[:2]):
        fold = fields[3] if len(fields) == 4 else None
        if fields[0] == fields[1]:
            raise DataError(f"{path}, line {line}: {fields[0]!r} is paired with itself")
        if fold is None or fold.isdecimal():
            return fields[0], fields[1], _ANSWERS[fields[2]], None if fold is None else int(fold)
    raise DataError(
        f"{path}, line {line}: expected path, path, 1 (one person) or 0 (two), and perhaps a fold; "
        f"got {' '.join(fields)[:80]!r}"
    )


def _all_or_none(folds: list[int | None], path: Path) -> IntArray | None:
    known = [fold for fold in folds if fold is not None]
    if known and len(known) < len(folds):
        raise DataError(
            f"{path} has a fold in {len(known)} of {len(folds)} lines: give all or none"
        )
    return np.array(known, np.int64) if known else None

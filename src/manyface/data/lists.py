"""The LFW lists (Huang et al. 2007): who is in a set, and which pairs are compared.

people.txt, peopleDevTrain.txt    a count, then lines "name<TAB>number of images"; people.txt has
                                  the number of folds first and a count before each fold
any other text                    one name per line
pairs.txt                         "folds<TAB>n", then per fold n pairs of one person "name k1 k2"
                                  and n of two people "name1 k1 name2 k2"
pairsDevTrain.txt, pairsDevTest.txt   "n", then the same with a single fold

Fields are separated by TABs where a line has one (names may then hold spaces), else by spaces.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError


@dataclass(frozen=True)
class PairList:
    """P pairs of images, each image as (name of the person, number from 1).

    Attributes:
        left, right: the two images of each pair.
        same: bool [P], whether both show one person.
        fold: int64 [P], from 0.
    """

    left: list[tuple[str, int]]
    right: list[tuple[str, int]]
    same: npt.NDArray[np.bool_]
    fold: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.left)


def read_people(text: str) -> list[str]:
    """Names of a people list in its order, each once; DataError if there is none."""
    lines = list(_content(text))
    numbers_only = [line.strip().isdecimal() for _, line in lines]
    if lines and numbers_only[0] and not all(numbers_only):
        names = _names_in_sections(
            lines, [i for i, is_count in enumerate(numbers_only) if is_count]
        )
    else:
        names = [line.split("\t")[0].strip() for _, line in lines]
    if not names:
        raise DataError("the list of people is empty; expected one name per line")
    return list(dict.fromkeys(names))


def read_pairs(text: str) -> PairList:
    """The pairs of a pair list; DataError names the line that cannot be meant."""
    lines = list(_content(text))
    if not lines:
        raise DataError("the list of pairs is empty; expected 'folds<TAB>n' or 'n' in line 1")
    num_folds, pairs_per_kind = _read_pairs_header(*lines[0])
    wanted = num_folds * 2 * pairs_per_kind
    if len(lines) - 1 != wanted:
        raise DataError(
            f"line {lines[0][0]} promises {num_folds} folds of {pairs_per_kind} + {pairs_per_kind} "
            f"pairs, {wanted} in all; the list has {len(lines) - 1}"
        )
    pairs = [_read_pair(number, line) for number, line in lines[1:]]
    return PairList(
        left=[left for left, _ in pairs],
        right=[right for _, right in pairs],
        same=np.array([left[0] == right[0] for left, right in pairs], dtype=bool),
        fold=np.arange(wanted, dtype=np.int64) // (2 * pairs_per_kind),
    )


def write_pairs(pairs: PairList) -> str:
    """The text of a pair list that `read_pairs` reads; folds are one after the other.

    Raises:
        DataError: folds of odd or unequal size, which such a list cannot say, or a name it cannot.
    """
    sizes = np.unique(pairs.fold, return_counts=True)[1]
    if len(set(sizes.tolist())) != 1 or sizes[0] % 2:
        raise DataError(
            f"{len(pairs)} pairs in {len(sizes)} folds: a list of pairs has folds of one size, and "
            "an even number of pairs in each"
        )
    lines = [f"{len(sizes)}\t{sizes[0] // 2}" if len(sizes) > 1 else str(sizes[0] // 2)]
    for (name, number), (other, other_number) in zip(pairs.left, pairs.right, strict=True):
        fields = [name, number, *([] if name == other else [other]), other_number]
        line = "\t".join(map(str, fields))
        if _read_pair(len(lines) + 1, line) != ((name, number), (other, other_number)):
            raise DataError(f"{line[:80]!r} cannot be a line of a list of pairs: rename the people")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _content(text: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of the lines that are not empty."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line


def _names_in_sections(lines: list[tuple[int, str]], headers: list[int]) -> list[str]:
    """Names under counts; `headers` are the places in `lines` that hold a number alone."""
    if len(headers) > 1:
        num_folds, headers = int(lines[headers[0]][1]), headers[1:]
        if num_folds != len(headers):
            raise DataError(
                f"people list, line {lines[0][0]}: promises {num_folds} folds; there are "
                f"{len(headers)} counts"
            )
    names: list[str] = []
    for start, end in itertools.pairwise([*headers, len(lines)]):
        number, count = lines[start][0], int(lines[start][1])
        if end - start - 1 != count:
            raise DataError(
                f"people list, line {number}: promises {count} names; {end - start - 1} follow"
            )
        names += [_without_count(line) for _, line in lines[start + 1 : end]]
    return names


def _without_count(line: str) -> str:
    """ "Ann_Lee<TAB>3" or "Ann_Lee 3" -> "Ann_Lee"."""
    counted = re.fullmatch(r"(.+?)\s+\d+", line.strip())
    return counted[1] if counted else line.strip()


def _read_pairs_header(number: int, line: str) -> tuple[int, int]:
    """(folds, pairs of each kind per fold)."""
    fields = line.split()
    if len(fields) not in (1, 2) or not all(map(_is_positive, fields)):
        raise DataError(
            f"pair list, line {number}: expected 'folds<TAB>n' or 'n', got {line.strip()[:80]!r}"
        )
    return (int(fields[0]) if len(fields) == 2 else 1), int(fields[-1])


def _read_pair(number: int, line: str) -> tuple[tuple[str, int], tuple[str, int]]:
    parts = line.split("\t") if "\t" in line else line.split()
    fields = [part.strip() for part in parts]
    if len(fields) == 3 and _is_positive(fields[1]) and _is_positive(fields[2]):
        return (fields[0], int(fields[1])), (fields[0], int(fields[2]))
    is_pair_of_two = len(fields) == 4 and _is_positive(fields[1]) and _is_positive(fields[3])
    if not is_pair_of_two or fields[0] == fields[2]:
        raise DataError(
            f"pair list, line {number}: expected 'name k1 k2' or 'name1 k1 name2 k2' with two "
            f"different names and numbers from 1, got {line.strip()[:80]!r}"
        )
    return (fields[0], int(fields[1])), (fields[2], int(fields[3]))


def _is_positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0

"""Records that show the same: by their bytes, by their pixels, or nearly.

Candidates come from checksums and fingerprints (near.py) and are confirmed on the records, which
are read again. A group of equal records is judged by its people: copies within one identity are
superfluous, copies in two identities contradict each other. Of such a group only the first record
takes part in the search for others like it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from manyface.base.progress import Progress
from manyface.data.decode import UnreadableImageError, decode_whole
from manyface.data.records import Records, labels_of
from manyface.data.records.store import Int64Array, UInt32Array, UInt64Array
from manyface.data.tools.defects import Cases
from manyface.data.tools.near import MAX_PAIRS, MIN_CORRELATION, near_pairs, thumbnail
from manyface.data.tools.reading import chunks_of, mapped

_MOST_TOLD = 1000  # of one picture: a "no photo" sign may be there a million times


@dataclass(frozen=True)
class Pictures:
    """What the search knows: of N records.

    Attributes:
        numbers: int64 [N], the records.
        checksums: uint32 [N], of their bytes.
        prints: uint64 [N, 2].
    """

    numbers: Int64Array
    checksums: UInt32Array
    prints: UInt64Array


def find_duplicates(
    records: Records, pictures: Pictures, cases: Cases, *, threads: int, progress: Progress
) -> None:
    """Add all cases among `pictures`."""
    superfluous = np.zeros(len(pictures.numbers), bool)
    for group in _equal_groups(records, pictures):
        superfluous[group[1:]] = True
        _judge_group(records, pictures.numbers[group], cases)
    left = np.flatnonzero(~superfluous)
    pairs = pictures.numbers[left[near_pairs(pictures.prints[left])]]  # [n, 2]
    if len(pairs) > MAX_PAIRS:
        cases.add_file("near-within", f"more than {MAX_PAIRS} pairs; the search was stopped")
    _judge_pairs(records, np.sort(pairs, axis=1), cases, threads=threads, progress=progress)


def _equal_groups(records: Records, pictures: Pictures) -> Iterator[Int64Array]:
    """Places of equal bytes, two or more, ascending by record."""
    prints, checksums = pictures.prints, pictures.checksums
    order = np.lexsort((pictures.numbers, checksums, prints[:, 0], prints[:, 1]))
    same = (prints[order[1:]] == prints[order[:-1]]).all(axis=1)
    same &= checksums[order[1:]] == checksums[order[:-1]]
    starts = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]]))
    for start in starts.tolist():
        end = start + 1
        while end <= len(same) - 1 and same[end]:
            end += 1
        candidates = order[start : end + 1]
        data = records.read(int(pictures.numbers[candidates[0]]))
        equal = [i for i in candidates.tolist() if records.read(int(pictures.numbers[i])) == data]
        if len(equal) > 1:
            yield np.array(equal)


def _judge_group(records: Records, group: Int64Array, cases: Cases) -> None:
    """Records of equal bytes, ascending."""
    people = labels_of(records.first_images, group)
    _, firsts, whose = np.unique(people, return_index=True, return_inverse=True)
    heads = group[firsts]  # the first record of each person, ascending
    copies = np.delete(np.arange(len(group)), firsts)
    for place in copies[:_MOST_TOLD].tolist():
        first = cases.name(int(heads[whose[place]]))
        cases.add_record("duplicate-within", int(group[place]), f"as {first}")
    cases.add_untold("duplicate-within", group[copies[_MOST_TOLD:]].tolist())
    if len(heads) > 1:
        first, second = (cases.name(int(head)) for head in heads[:2])
        for number in heads[:_MOST_TOLD].tolist():
            other = second if number == heads[0] else first
            cases.add_record("duplicate-across", number, f"as {other}")
        cases.add_untold("duplicate-across", heads[_MOST_TOLD:].tolist())


def _judge_pairs(
    records: Records, pairs: Int64Array, cases: Cases, *, threads: int, progress: Progress
) -> None:
    """Candidates [n, 2], in each pair the smaller number first."""
    people = labels_of(records.first_images, pairs)
    told: set[tuple[str, int]] = set()
    done = 0
    chunks = chunks_of(len(pairs), lambda first, stop: np.arange(first, stop))
    for alike in mapped(lambda part: [_alike(records, *pairs[i]) for i in part.tolist()], chunks,
                        threads=threads):  # fmt: skip
        for place, found in enumerate(alike, start=done):
            across = people[place, 0] != people[place, 1]
            if found is not None:
                kind = f"{found}-{'across' if across else 'within'}"
                _add_pair(records, pairs[place].tolist(), kind, cases, told)
        done += len(alike)
        progress(done, len(pairs))


def _add_pair(
    records: Records, pair: list[int], kind: str, cases: Cases, told: set[tuple[str, int]]
) -> None:
    first, second = pair
    if (kind, second) not in told:  # one line is enough for a picture that is there ten times
        told.add((kind, second))
        cases.add_record(kind, second, f"as {cases.name(first)}")
    if kind == "same-pixels-across" and (kind, first) not in told:
        told.add((kind, first))
        cases.add_record(kind, first, f"as {cases.name(second)}")


def _alike(records: Records, first: int, second: int) -> str | None:
    """How two records are alike: "same-pixels", "near", or not at all."""
    try:
        left, right = (decode_whole(records.read(int(record))) for record in (first, second))
    except (OSError, UnreadableImageError):
        return None  # it could be read a while ago
    if left.shape == right.shape and (left == right).all():
        return "same-pixels"
    return "near" if float(thumbnail(left) @ thumbnail(right)) >= MIN_CORRELATION else None

"""What a set is, from its index and a sample of its images.

Counts are exact, they come from the index; sizes, colours and formats are those of a seeded sample,
because reading 100 million images for a look would take hours.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manyface.base.permutation import Permutation
from manyface.base.progress import Progress, no_progress
from manyface.base.threads import usable_cores
from manyface.data.decode import MAX_PIXELS, UnreadableImageError, decode_whole
from manyface.data.image_header import read_header
from manyface.data.records import IndexedRecords, Records
from manyface.data.records.store import Int64Array
from manyface.data.tools.reading import chunks_of, mapped

SAMPLE = 2000
_FEWEST_FOR_SPEED = 16


@dataclass(frozen=True)
class Spread:
    """How some numbers are distributed."""

    smallest: float
    median: float
    mean: float
    largest: float

    @classmethod
    def of(cls, values: Any) -> "Spread":
        """Of a sequence with one number at least."""
        low, high = np.min(values), np.max(values)
        return cls(float(low), float(np.median(values)), float(np.mean(values)), float(high))


@dataclass(frozen=True)
class Inspection:
    """What `inspect_records` finds.

    Attributes:
        format: folder, list, tar, recordio, ...
        per_identity: images of each identity.
        histogram: (fewest, most, identities) for images per identity in bins of 1, 2, 3-4, ...
        sampled, unreadable: images looked at, and those of them that could not be decoded.
        bytes_per_image: of the encoded images of the sample.
        sizes: "width x height" -> images of the sample, commonest first; so forms and colours.
        one_thread, all_threads: images read and decoded per second; None for a tiny sample.
        left_out, headers: records that are no images, and insightface's; None: not of this format.
        checksums: whether the index has them; None where there is no index.
        index_bytes: of the index.
    """

    path: str
    format: str
    identities: int
    images: int
    per_identity: Spread
    histogram: list[tuple[int, int, int]]
    sampled: int
    unreadable: int
    bytes_per_image: Spread | None
    sizes: dict[str, int]
    forms: dict[str, int]
    colours: dict[str, int]
    one_thread: float | None
    all_threads: float | None
    threads: int
    left_out: int | None
    headers: int | None
    checksums: bool | None
    index_bytes: int

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        return asdict(self)


def inspect_records(
    records: Records,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    threads: int = 0,
    progress: Progress = no_progress,
) -> Inspection:
    """Look at `records`: `sample` images (all, if there are fewer), drawn by `seed`, are decoded.

    Args:
        threads: for half of the sample, whose speed is told beside that of one thread on the
            other half; 0 = one per core.
    """
    threads = threads or usable_cores()
    chosen = _sample(len(records), min(sample, len(records)), seed)
    counts = np.diff(records.first_images)
    # Other images for each speed: what was read once comes from memory, not from the disk.
    half, rest = chosen[::2], chosen[1::2]
    looks, one = _look(records, half, 1, lambda done: progress(done, len(chosen)))
    more, every = _look(
        records, rest, threads, lambda done: progress(len(half) + done, len(chosen))
    )
    looks += more
    seen = [look for look in looks if look is not None]
    index = records.index if isinstance(records, IndexedRecords) else None
    return Inspection(
        path=str(records.path),
        format=format_of(records),
        identities=len(records.identity_names),
        images=len(records),
        per_identity=Spread.of(counts),
        histogram=histogram(counts),
        sampled=len(chosen),
        unreadable=len(looks) - len(seen),
        bytes_per_image=Spread.of([look[0] for look in seen]) if seen else None,
        sizes=_commonest(f"{look[1]}x{look[2]}" for look in seen),
        forms=_commonest(look[3] for look in seen),
        colours=_commonest(look[4] for look in seen),
        one_thread=one,
        all_threads=every,
        threads=threads,
        left_out=None if index is None else index.num_faults,
        headers=None if index is None else _num_headers(index.notes),
        checksums=None if index is None else index.checksums is not None,
        index_bytes=int(getattr(records, "index_bytes", 0)),
    )


def format_of(records: Records) -> str:
    """The format in one word."""
    if isinstance(records, IndexedRecords):
        return records.store.kind
    return type(records).__name__.removesuffix("Records").lower()


def histogram(counts: Int64Array) -> list[tuple[int, int, int]]:
    """(fewest, most, how many) of counts in bins that double: 1, 2, 3-4, 5-8, ..."""
    bins: list[tuple[int, int, int]] = []
    low, high = 1, 1
    while low <= counts.max():
        bins.append((low, high, int(((counts >= low) & (counts <= high)).sum())))
        low, high = high + 1, 2 * high
    while bins and bins[0][2] == 0:
        bins.pop(0)
    return bins


Look = tuple[int, int, int, str, str]  # bytes, width, height, format, colours


def _look(
    records: Records, chosen: Int64Array, threads: int, progress: Callable[[int], None]
) -> tuple[list[Look | None], float | None]:
    """What each image is (None: it cannot be read), and how many were decoded per second."""
    start, found = time.perf_counter(), []
    chunks = chunks_of(len(chosen), lambda first, stop: chosen[first:stop])
    for looks in mapped(lambda part: [_look_at(records, i) for i in part.tolist()], chunks,
                        threads=threads):  # fmt: skip
        found += looks
        progress(len(found))
    seconds = time.perf_counter() - start
    return found, len(found) / seconds if len(found) >= _FEWEST_FOR_SPEED else None


def _look_at(records: Records, record: int) -> Look | None:
    try:
        data = records.read(record)
        header = read_header(data)
        if header.width * header.height <= MAX_PIXELS:
            decode_whole(data)
        return len(data), header.width, header.height, header.form, header.colours
    except (OSError, UnreadableImageError):
        return None


def _sample(count: int, size: int, seed: int) -> Int64Array:
    """`size` of `count` records, ascending: a disk is read forwards."""
    return np.sort(Permutation(count, seed=seed)(np.arange(size)))


def _commonest(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _num_headers(notes: Mapping[str, str]) -> int | None:
    return int(json.loads(notes["headers"])["count"]) if "headers" in notes else None

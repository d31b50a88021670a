"""Every record of a set once, read and looked at by threads, handed out in the order of storage."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from manyface.data.loader import made_ahead
from manyface.data.records import Records
from manyface.data.records.store import Int64Array

T = TypeVar("T")

CHUNK = 64  # records that a thread takes at a time


def in_storage_order(records: Records) -> Callable[[int, int], Int64Array]:
    """A function: the records that lie at [start, stop) in the order of the files."""
    return lambda start, stop: records.from_storage(np.arange(start, stop, dtype=np.int64))


def mapped(work: Callable[[Int64Array], T], chunks: Iterator[Int64Array], *, threads: int
           ) -> Iterator[T]:  # fmt: skip
    """work(chunk) of every chunk, in order; a few are done ahead, so memory stays bounded."""
    return made_ahead(work, chunks, prefetch=2 * threads + 1, workers=threads)


def chunks_of(
    count: int, places: Callable[[int, int], Int64Array], *, start: int = 0, size: int = CHUNK
) -> Iterator[Int64Array]:
    """places(k, k + size) for k from `start` to `count`."""
    for first in range(start, count, size):
        yield places(first, min(first + size, count))

"""Asking the disk for rows before they are read.

Rows of a mapped file that are not in memory would be read one page fault after the other, each
with 128 KB around it. Asked for by posix_fadvise(WILLNEED), all of them are under way at once, and
come into the system's page cache, of which a mapping is a view: nothing can be stale, and a file
that cannot be asked for is read when it is needed. A sample that does not look at labels is known
a step early and asked for in a thread; the rows of the batch's own classes when they are wanted.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyface.base.permutation import Int64Array


@dataclass(frozen=True)
class RowBlocks:
    """Rows [start, start + size) for each of `starts`, int64 [M], sorted; the last may be short."""

    starts: Int64Array
    size: int


Draw = Callable[[], RowBlocks]


@dataclass(frozen=True)
class RowFile:
    """A file of rows of `row_bytes` each."""

    path: Path
    num_bytes: int
    row_bytes: int


class ReadAhead:
    """Asks for rows of files, one request at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._under_way: Future[None] | None = None

    def __call__(self, files: Sequence[RowFile], draw: Draw) -> None:
        """Ask for the rows that `draw` gives, in a thread; not while an earlier one is under way.

        What an earlier `draw` has raised is raised here.
        """
        if self._under_way is not None:
            if not self._under_way.done():
                return
            self._under_way.result()
        self._under_way = self._thread.submit(_ask_for_drawn, tuple(files), draw)

    def wait(self) -> None:
        """Until what is under way has been asked for."""
        if self._under_way is not None:
            self._under_way.result()


def _ask_for_drawn(files: Sequence[RowFile], draw: Draw) -> None:
    ask(files, draw())


def ask(files: Sequence[RowFile], blocks: RowBlocks) -> None:
    """Have the pages of these rows read; returns at once."""
    for each in files:
        with suppress(OSError), each.path.open("rb") as file:
            for start, stop in page_ranges(blocks, each):
                os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_WILLNEED)


def page_ranges(blocks: RowBlocks, file: RowFile) -> list[tuple[int, int]]:
    """(start, stop) in bytes of the whole pages that hold `blocks`; pages side by side are one."""
    if len(blocks.starts) == 0:
        return []
    page = os.sysconf("SC_PAGE_SIZE")
    ends = np.minimum((blocks.starts + blocks.size) * file.row_bytes, file.num_bytes)
    first, last = blocks.starts * file.row_bytes // page, -(-ends // page)  # [M]
    apart = first[1:] > last[:-1]
    starts = first[np.concatenate([[True], apart])] * page
    stops = last[np.concatenate([apart, [True]])] * page
    return list(zip(starts.tolist(), stops.tolist(), strict=True))

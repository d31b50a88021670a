"""Which bytes are asked for, that they come, and that an error in the thread is not lost."""

import ctypes
import mmap
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from manyface.centers.read_ahead import ReadAhead, RowBlocks, RowFile, page_ranges

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("row_bytes", [4, 1000, PAGE, 3 * PAGE])
@pytest.mark.parametrize("size", [1, 7])
def test_ranges_are_the_pages_of_the_blocks_each_once(row_bytes: int, size: int) -> None:
    num_rows = 5000
    starts = np.unique(np.random.default_rng(0).integers(num_rows // size + 1, size=200)) * size
    file = RowFile(Path("unused"), num_rows * row_bytes, row_bytes)
    ranges = page_ranges(RowBlocks(starts[starts < num_rows], size), file)
    found = [page for start, stop in ranges for page in range(start // PAGE, stop // PAGE)]
    bytes_of = [
        (start * row_bytes, min(start + size, num_rows) * row_bytes)
        for start in starts[starts < num_rows].tolist()
    ]
    expected = {page for a, b in bytes_of for page in range(a // PAGE, -(-b // PAGE))}
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(stop < after for (_, stop), (after, _) in pairwise(ranges))


def test_no_rows_ask_for_nothing() -> None:
    assert page_ranges(RowBlocks(np.empty(0, np.int64), 4), RowFile(Path("unused"), 0, 8)) == []


def test_the_pages_come_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "weight.rows"
    path.write_bytes(os.urandom(4096 * PAGE))
    file = RowFile(path, 4096 * PAGE, PAGE)
    with path.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = resident(path)
    if before[64:128].any():
        pytest.skip("this file system keeps its files in memory")
    read_ahead = ReadAhead()
    read_ahead([file], lambda: RowBlocks(np.array([64, 2000]), 64))
    read_ahead.wait()
    wanted = np.r_[64:128, 2000:2064]
    until = time.monotonic() + 30  # the system answers before the disk does
    while resident(path)[wanted].mean() < 0.9 and time.monotonic() < until:
        time.sleep(0.02)
    after = resident(path)
    assert after[wanted].mean() >= 0.9  # short of memory, it may have dropped some again
    assert not after.all()


def test_a_file_that_is_gone_is_no_error_but_a_wrong_draw_is(tmp_path: Path) -> None:
    read_ahead = ReadAhead()
    read_ahead([RowFile(tmp_path / "gone", 80, 8)], lambda: RowBlocks(np.array([0]), 4))
    read_ahead.wait()

    def wrong() -> RowBlocks:
        raise ZeroDivisionError

    read_ahead([], wrong)
    with pytest.raises(ZeroDivisionError):
        read_ahead.wait()
    with pytest.raises(ZeroDivisionError):
        read_ahead([], wrong)


def resident(path: Path) -> np.ndarray:
    """Which pages of a file are in memory, bool [pages]."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = np.zeros(len(mapped) // PAGE, np.uint8)
        anchor = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(anchor))
        failed = libc.mincore(
            address, ctypes.c_size_t(len(mapped)), ctypes.c_void_p(pages.ctypes.data)
        )
        del anchor
        assert failed == 0, os.strerror(ctypes.get_errno())
    return (pages & 1).astype(bool)

"""Asking the kernel for parts of a file before they are read.

Reads at random places make the kernel fetch a page or two each; a disk that is told of a whole
block reads it at once. Neighbours, with less than `_GAP` between them, are asked for together.
"""

import os

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
_GAP = 64 << 10  # bytes between records that cost less to read than another request


def will_need(descriptor: int, offsets: Int64Array, sizes: Int64Array) -> None:
    """Say that the ranges (`offsets`, `sizes`), int64 [B] each, of a file will be read soon.

    Does nothing where the system has no such call.
    """
    if not len(offsets) or not hasattr(os, "posix_fadvise"):
        return
    for start, stop in merged(offsets, sizes):
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_WILLNEED)


def merged(offsets: Int64Array, sizes: Int64Array) -> list[tuple[int, int]]:
    """Ranges [start, stop) that hold all of them, ascending, neighbours as one."""
    order = np.argsort(offsets)
    starts, stops = offsets[order], np.maximum.accumulate((offsets + sizes)[order])
    is_first = np.concatenate([[True], starts[1:] - stops[:-1] > _GAP])
    is_last = np.concatenate([is_first[1:], [True]])
    return list(zip(starts[is_first].tolist(), stops[is_last].tolist(), strict=True))

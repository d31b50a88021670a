"""Peak memory of this process: anonymous plus shared resident bytes, sampled in a thread.

The operating system's own peak (VmHWM, ru_maxrss) also counts pages of mapped files, which cost
nothing when memory is short: a data set read through mmap would look like gigabytes of use.
RssAnon + RssShmem is what the program itself asked for. Sampling misses peaks shorter than the
interval; one sample costs about 60 microseconds.
"""

import ctypes
import gc
import os
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_STATUS = Path("/proc/self/status")
_FIELDS = ("RssAnon:", "RssShmem:")


def machine_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def resident_bytes() -> int:
    """Anonymous + shared resident bytes now; where /proc is missing, the peak of all pages."""
    found = _sum_of(_FIELDS)
    return _peak_of_all_pages() if found is None else found


def file_bytes() -> int | None:
    """Resident pages of files now, given up when memory is short, in bytes; None: unknown."""
    return _sum_of(("RssFile:",))


def _sum_of(fields: tuple[str, ...]) -> int | None:
    """Bytes of these lines of the process's status; None where they are not all there."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return None
    found = [line.split() for line in status.splitlines() if line.startswith(fields)]
    return sum(int(words[1]) for words in found) * 1024 if len(found) == len(fields) else None


def _peak_of_all_pages() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back_freed() -> None:
    """Hand freed memory that the allocator keeps back to the system, where it (glibc) can.

    Else a baseline would count it, and what is made next from it would seem to cost nothing.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryMeter:
    """`with MemoryMeter() as meter: ...` then `meter.peak_bytes`."""

    def __init__(self, *, interval_seconds: float = 0.05) -> None:
        self._interval_seconds = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-meter", daemon=True)
        self._peak_bytes = 0

    @property
    def peak_bytes(self) -> int:
        """Highest host memory seen so far."""
        self._peak_bytes = max(self._peak_bytes, resident_bytes())
        return self._peak_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._peak_bytes = max(self._peak_bytes, resident_bytes())
            if self._stop.wait(self._interval_seconds):
                return


def peak_device_bytes(device: torch.device) -> int | None:
    """Highest memory that torch's allocator held on a CUDA device; None elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

"""Where a table's rows and their state lie: in memory, or in files that are mapped into it.

They need not lie on the device that computes: `CenterTable` moves a step's rows there and back.

A mapped table may be larger than memory. Only the pages that a step touches are read; the system
keeps those it has room for and writes changed ones back. A page holds 4 rows of 512 bfloat16
numbers, so rows are best drawn in blocks (`heads/sampling`). The files are working storage like
memory itself: what lasts is a checkpoint, and a table that is made anew overwrites what an earlier
process has left.
"""

import math
import os
import weakref
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
import torch
from torch import Tensor

from manyface.base.errors import ConfigError, WriteError
from manyface.base.files import is_first, open_lock
from manyface.centers.read_ahead import Draw, ReadAhead, RowBlocks, RowFile, ask
from manyface.observe.available import available_bytes

_SUFFIX = ".rows"
_LOCK = "rows.lock"


class Place(Protocol):
    """Makes the tensors of one table."""

    def reserve(self, num_bytes: int) -> None:
        """Called once, before anything is made.

        Raises:
            ConfigError: there is no room for `num_bytes`, with both numbers.
        """

    def zeros(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of zeros; `name` is its own in the table."""

    def ask(self, ids: Tensor) -> None:
        """The rows `ids`, int64 [n], are about to be read, one by one."""

    def read_ahead(self, draw: Draw) -> None:
        """These rows will be read soon. `draw` may be called in another thread, or never."""


class InMemory:
    """On a device; `None` is torch's default one."""

    def __init__(self, device: torch.device | str | None = None) -> None:
        self.device = device

    def reserve(self, num_bytes: int) -> None:
        """Of the host or a CUDA GPU; other devices refuse by themselves."""
        device = torch.empty(0, device=self.device).device
        free = free_bytes(device)
        if free is not None and num_bytes > free:
            raise ConfigError(
                f"class centers and their optimizer need {_gib(num_bytes)} of memory, "
                f"{_gib(free)} are available on {device.type}: keep them in bfloat16 "
                "(head.dtype), without momentum (head.momentum = 0), elsewhere (head.placement), "
                "or take F2C, which has none"
            )

    def zeros(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """In memory."""
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def ask(self, ids: Tensor) -> None:
        """Nothing: they are there."""

    def read_ahead(self, draw: Draw) -> None:
        """Nothing either."""


def is_held(folder: Path) -> bool:
    """Whether rows of a table that lives, in this or another process, are in its files."""
    lock = folder / _LOCK
    try:
        with lock.open("rb") as file:
            return not is_first(file.fileno(), lock)
    except OSError:  # no lock there
        return False


def disk_bytes(folder: Path | str) -> int:
    """Free bytes of the disk where `folder` is or would be; a table's files in it count as free.

    Raises:
        WriteError: it cannot be there.
    """
    folder = Path(folder).absolute()
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        disk = os.statvfs(there if there.is_dir() else folder)
        replaced = sum(path.stat().st_blocks * 512 for path in folder.glob(f"*{_SUFFIX}"))
    except OSError as error:
        raise WriteError(folder, error) from error
    return disk.f_bavail * disk.f_frsize + replaced


class InFiles:
    """In files of `folder`, which belongs to one table of one process at a time.

    Args:
        folder: made if it is missing; should lie on a local, fast disk.

    Raises:
        ConfigError: another process uses it, or it holds files that are not a table's.
        WriteError: it cannot be written.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._files: dict[Path, RowFile] = {}
        self._read_ahead = ReadAhead()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open_lock(self.folder / _LOCK)
        except OSError as error:
            raise WriteError(self.folder, error) from error
        weakref.finalize(self, os.close, self._lock)  # held as long as this object lives
        self._take_lock()
        self._refuse_strangers()

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            f"class centers in {self.folder} cannot be copied with their head; make another head "
            "in another folder and load this one's state_dict"
        )

    def reserve(self, num_bytes: int) -> None:
        """Of the disk, where files that are about to be replaced count as free."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            path.unlink()
        if num_bytes > (free := disk_bytes(self.folder)):
            raise ConfigError(
                f"class centers and their optimizer need {_gib(num_bytes)} in {self.folder}, "
                f"{_gib(free)} are free: choose a folder on another disk, bfloat16, or no momentum"
            )

    def zeros(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Mapped; its bytes are reserved on the disk, so that no later write finds it full."""
        path, numbers = self.folder / f"{name}{_SUFFIX}", math.prod(shape)
        if shape[0] == 0:  # a rank without classes; nothing can be mapped
            return torch.zeros(shape, dtype=dtype)
        try:
            path.unlink(missing_ok=True)  # one that is mapped lives on as long as it is
            with path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, numbers * dtype.itemsize)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise WriteError(path, error) from error
        num_bytes = numbers * dtype.itemsize
        self._files[path] = RowFile(path, num_bytes, num_bytes // shape[0])
        mapped = torch.from_file(str(path), shared=True, size=numbers, dtype=dtype)
        return mapped.view(shape)

    def ask(self, ids: Tensor) -> None:
        """At once: a page fault for each would wait for the disk as often."""
        ask(tuple(self._files.values()), RowBlocks(np.unique(ids.cpu().numpy()), 1))

    def read_ahead(self, draw: Draw) -> None:
        """In a thread."""
        self._read_ahead(tuple(self._files.values()), draw)

    def _take_lock(self) -> None:
        if not is_first(self._lock, self.folder / _LOCK):
            raise ConfigError(
                f"{self.folder} holds the class centers of another head, of this or another "
                "process; wait for it, stop it or delete it, or choose another folder"
            )

    def _refuse_strangers(self) -> None:
        for path in self.folder.iterdir():
            if path.suffix != _SUFFIX and path.name != _LOCK:
                raise ConfigError(
                    f"{self.folder} is to hold class centers only, but there is {path.name}; "
                    "choose an empty or a new folder"
                )


def free_bytes(device: torch.device) -> int | None:
    """What may still be taken; None: unknown. What torch's allocator keeps for reuse is free."""
    if device.type == "cpu":
        return available_bytes()
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"

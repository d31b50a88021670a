"""The few calls to the system that a checkpoint is made of; each failure names its path.

Tests make every one of them fail, and replay their order as a loss of power would cut it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class NewFile:
    """A file that was not there before; nothing is buffered here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _naming(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o666)

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`."""
        rest = memoryview(data)
        with _naming(self.path):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Force what was written to the disk."""
        with _naming(self.path):
            os.fsync(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _naming(self.path):
            os.close(self._descriptor)


def make_directory(path: Path) -> None:
    """Make a directory that was not there."""
    with _naming(path):
        path.mkdir()


def rename(old: Path, new: Path) -> None:
    """Give a file or directory its name; atomic. A file that had it is gone."""
    with _naming(old):
        old.replace(new)


def sync_directory(path: Path) -> None:
    """Force the names in a directory to the disk."""
    with _naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Space left where `path` lies."""
    return shutil.disk_usage(path).free


def discard(path: Path) -> None:
    """Remove a file or a tree as far as that is possible."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Calls on descriptors do not say which file it was."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise

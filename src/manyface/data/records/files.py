"""Files as records need them: read anywhere by anybody, written whole or not at all."""

import errno
import fcntl
import os
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, WriteError


class PlainFile:
    """A file to be read anywhere, from any thread and any forked process, without a position."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        self.path = path
        self.close = weakref.finalize(self, os.close, self._descriptor)

    @property
    def descriptor(self) -> int:
        return self._descriptor

    @contextmanager
    def streamed(self) -> Iterator["PlainFile"]:
        """Itself; of files that are far away (remote.py) something faster from front to back."""
        yield self

    @property
    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`; OSError if the file ends before."""
        data = _read_at(self._descriptor, offset, count)
        if len(data) < count:
            missing = count - len(data)
            raise OSError(f"{self.path.name} ends {missing} bytes before the record does")
        return data

    def map(self) -> npt.NDArray[np.uint8]:
        """All bytes, mapped into memory: uint8 [size]."""
        if not self.size:
            return np.zeros(0, np.uint8)
        return np.memmap(self.path, np.uint8, mode="r")


def read_whole(path: str | Path, *, limit: int) -> bytes:
    """The bytes of a plain file; OSError if it is none, or has more than `limit` of them.

    Without a file object, and from text rather than a Path: half of the time of a small file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no plain file")
        if status.st_size > limit:
            raise OSError(f"it has {status.st_size} bytes, more than any image ({limit})")
        return _read_at(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    """`count` bytes at `offset`, fewer where the file ends; one call reads 2 GiB at most."""
    data = os.pread(descriptor, count, offset)
    while len(data) < count and (
        part := os.pread(descriptor, count - len(data), offset + len(data))
    ):
        data += part
    return data


def only_file(folder: Path, suffix: str, *, preferred: str) -> Path | None:
    """The file in `folder` that ends in `suffix`: the `preferred` one of several; None if none.

    Raises:
        DataError: there are several, and none of them is preferred.
    """
    found = sorted(path for path in folder.glob(f"*{suffix}") if path.is_file())
    if len(found) < 2 or folder / preferred in found:
        return folder / preferred if folder / preferred in found else next(iter(found), None)
    names = ", ".join(path.name for path in found[:5])
    raise DataError(f"{folder} has {len(found)} {suffix} files ({names}); give the path of one")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name `path`, forced to disk, when the block ends well; else nothing.

    Raises:
        OSError: it cannot be written, or a device or a pipe has that name.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(_mode_of(path))
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def held(path: Path) -> Iterator[None]:
    """No other process that asks writes `path` inside; nothing is left of the lock.

    Raises:
        DataError: another one is at it. WriteError: there can be no lock beside it.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise WriteError(path, error) from error
    with file:
        if not _is_first(file.fileno(), lock):
            raise DataError(f"another process is writing {path}; wait for it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _is_first(descriptor: int, lock: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    # One that was opened before, and held after, the other process took its lock away is no lock.
    return lock.exists() and os.path.samestat(lock.stat(), os.fstat(descriptor))


def write_whole(path: Path, data: bytes) -> None:
    """A small file, one of thousands: under its name when it is complete, not forced to disk."""
    draft = path.with_name(f".{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW  # a link may lead elsewhere
    with os.fdopen(os.open(draft, flags, 0o666), "wb") as file:
        file.write(data)
    draft.replace(path)


def _mode_of(path: Path) -> int:
    """That of the file which is there: one that only its owner may read stays so."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except FileNotFoundError:
        return 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask

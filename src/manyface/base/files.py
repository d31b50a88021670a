"""Files that are written whole or not at all: under another name first, and by one at a time.

Checkpoints have calls of their own (checkpoint/disk.py), which tests cut off one by one.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from manyface.base.errors import DataError, WriteError

_LONGEST_NAME = 255  # bytes


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name `path`, forced to disk, when the block ends well; else nothing.

    Raises:
        OSError: it cannot be written, or what is there is no plain file: a device stays one.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is no plain file", str(path))
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    # Made by the kernel with the mode of any other file: to ask for the umask is to change it,
    # which other threads would notice.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():  # one that only its owner may read stays so
            draft.chmod(stat.S_IMODE(path.stat().st_mode) & 0o777)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """As `new_file`, in a folder that is made where it is missing; WriteError if it fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            yield file
    except OSError as error:
        raise WriteError(path, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """A small file, one of thousands: under its name when it is complete, not forced to disk."""
    name = f".{path.name}.part"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.part"
    draft = path.with_name(name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW  # a link may lead elsewhere
    with os.fdopen(os.open(draft, flags, 0o666), "wb") as file:
        file.write(data)
    draft.replace(path)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """No other process that asks writes `path` inside; nothing is left of the lock.

    Raises:
        DataError: another one is at it. WriteError: there can be no lock beside it.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_lock(lock)
    except OSError as error:
        raise WriteError(path, error) from error
    try:
        if not is_first(descriptor, lock):
            raise DataError(f"another process is writing {path}; wait for it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """A descriptor of a file to be locked, made if it is missing.

    OSError if it is a link: who packed a set could have it lead anywhere.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def is_first(descriptor: int, lock: Path) -> bool:
    """Whether this process holds the lock of the open file `lock` now; True where a file system
    has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    # One that was opened before, and held after, the other process took its lock away is no lock.
    return lock.exists() and os.path.samestat(lock.stat(), os.fstat(descriptor))

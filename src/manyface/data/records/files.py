"""Files as records need them: read anywhere by anybody, written whole or not at all."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError


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
        data = os.pread(self._descriptor, count, offset)
        if len(data) < count:
            data += self._rest(offset + len(data), count - len(data))
        return data

    def map(self) -> npt.NDArray[np.uint8]:
        """All bytes, mapped into memory: uint8 [size]."""
        if not self.size:
            return np.zeros(0, np.uint8)
        return np.memmap(self.path, np.uint8, mode="r")

    def _rest(self, offset: int, count: int) -> bytes:
        # One call reads 2 GiB at most.
        parts = []
        while count and (part := os.pread(self._descriptor, count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        if count:
            raise OSError(f"{self.path.name} ends {count} bytes before the record does")
        return b"".join(parts)


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
    """A file that gets its name `path`, forced to disk, when the block ends well; else nothing."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o666 & ~_umask())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """A small file, one of thousands: under its name when it is complete, not forced to disk."""
    draft = path.with_name(f".{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW  # a link may lead elsewhere
    with os.fdopen(os.open(draft, flags, 0o666), "wb") as file:
        file.write(data)
    draft.replace(path)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask

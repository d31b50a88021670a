"""Writing a set record by record, so that it can be stopped and gone on with.

A writer builds its files under names that nobody takes for a finished set (`draft_of`). `commit`
forces what was added to the disk and says in a few numbers how far that is; a later process gives
these to `resume` and goes on as if nothing had happened; `finish` gives the files their names.
"""

import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from manyface.base.errors import DataError

Position = dict[str, int]


class RecordWriter(ABC):
    """Writes one format.

    Args:
        path: what the set will be called.
        identity_names: of all people, in the order of their labels.
    """

    def __init__(self, path: Path, *, identity_names: Sequence[str]) -> None:
        self.path, self.identity_names = path, identity_names

    @abstractmethod
    def add(self, image: bytes, *, person: int, name: str) -> None:
        """The next record: its encoded image, label, and name (the last part of a path)."""

    @abstractmethod
    def commit(self) -> Position:
        """Force all that was added to the disk; what `resume` needs."""

    @abstractmethod
    def resume(self, position: Position) -> None:
        """Throw away what came after the commit that gave `position`; before any `add`.

        That is the last commit, or the one before it: the last may have been cut off.
        """

    @abstractmethod
    def finish(self) -> None:
        """Give the files their names; nothing can be added any more.

        `path` comes last: once it is there and no draft of it, all is done. A process that ends in
        the middle leaves what `resume` of the last position can go on from.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of open files; what was committed stays for `resume`."""


def draft_of(path: Path) -> Path:
    """The name of `path` while it is being written."""
    return path.with_name(path.name + ".part")


def new_folder(path: Path) -> Path:
    """The folder in which the set `path` is written; DataError if there is something at `path`."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path} is there already; remove it, or choose another name")
    folder = draft_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tar_member(name: str, content: bytes, form: Literal[0, 1, 2]) -> bytes:
    """A member of a tar file, its header in the format `form` of tarfile."""
    about = tarfile.TarInfo(name)
    about.size = len(content)
    header = about.tobuf(form, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def cut_off(path: Path) -> DataError:
    """What to raise where less is left than was written: to go on would lose records."""
    return DataError(
        f"{path} holds less than was written into it; remove what was begun, its .convert.json "
        "too, and begin again"
    )


class DraftFile:
    """A file that grows under the name of a draft and can be cut back to a committed length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = draft_of(path).open("ab")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    @property
    def length(self) -> int:
        return self._file.tell()

    def sync(self) -> int:
        """Force it to the disk; its length."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, length: int) -> None:
        """Throw away what lies after `length`; take the file back if it has its name already."""
        self._file.flush()
        if not self._file.tell() and length and self.path.is_file():
            self._file.close()
            self.path.replace(draft_of(self.path))
            self._file = draft_of(self.path).open("ab")
        if os.fstat(self._file.fileno()).st_size < length:
            raise cut_off(draft_of(self.path))
        self._file.truncate(length)
        self._file.seek(length)

    def finish(self) -> None:
        self.sync()
        self.close()
        draft_of(self.path).replace(self.path)

    def discard(self) -> None:
        """Throw all of it away."""
        self.close()
        draft_of(self.path).unlink()

    def close(self) -> None:
        self._file.close()

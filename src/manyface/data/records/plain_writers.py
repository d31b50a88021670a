"""Sets written in the plainest forms: a folder of persons, a list with its images, one tar file.

Names come from other people's data, so a writer takes only those that `safe_name` leaves alone: no
part of a path, nothing hidden, nothing too long. Nothing is written outside of `path` then.

A folder is made whole on disk by one `sync` at each commit: one call for many thousand files.
"""

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from manyface.base.errors import DataError
from manyface.data.records.headers import BLOCK
from manyface.data.records.naming import safe_name
from manyface.data.records.writer import (
    DraftFile,
    Position,
    RecordWriter,
    cut_off,
    draft_of,
    new_folder,
    tar_member,
)

_TAR_RECORD = 20 * BLOCK  # tar files end at a multiple of this


class FolderWriter(RecordWriter):
    """Writes the folder `path`, with a folder for each person."""

    def __init__(self, path: Path, *, identity_names: Sequence[str]) -> None:
        super().__init__(path, identity_names=identity_names)
        self._folder, self._count = new_folder(path), 0
        self._made = ""  # the last person whose folder is there

    def add(self, image: bytes, *, person: int, name: str) -> None:
        identity = checked(self.identity_names[person])
        if identity != self._made:
            (self._folder / identity).mkdir(exist_ok=True)
            self._made = identity
        (self._folder / identity / checked(name)).write_bytes(image)
        self._count += 1

    def commit(self) -> Position:
        os.sync()
        return {"count": self._count}

    def resume(self, position: Position) -> None:
        # Files that came later are written again, whole.
        if position["count"] and not any(self._folder.iterdir()):
            raise cut_off(self._folder)
        self._count = position["count"]

    def finish(self) -> None:
        os.sync()
        self._folder.replace(self.path)

    def close(self) -> None:
        return None


class ListWriter(RecordWriter):
    """Writes the list `path`, lines of file and person, and the images in a folder beside it."""

    def __init__(self, path: Path, *, identity_names: Sequence[str]) -> None:
        super().__init__(path, identity_names=identity_names)
        folder = path.with_suffix("")
        checked(folder.name.lstrip("."))  # it is in every line
        if folder == path:
            raise DataError(f"{path}: a list needs a suffix, such as {path}.txt")
        if draft_of(path).is_file() and folder.is_dir() and not draft_of(folder).exists():
            folder.replace(draft_of(folder))  # `finish` was cut off between its two files
        self._images = FolderWriter(folder, identity_names=identity_names)
        self._lines = DraftFile(path)

    def add(self, image: bytes, *, person: int, name: str) -> None:
        self._images.add(image, person=person, name=name)
        identity = self.identity_names[person]
        line = f"{self._images.path.name}/{identity}/{name}\t{identity}\n"
        self._lines.write(line.encode())

    def commit(self) -> Position:
        return {**self._images.commit(), "list": self._lines.sync()}

    def resume(self, position: Position) -> None:
        self._images.resume(position)
        self._lines.cut(position["list"])

    def finish(self) -> None:
        self._lines.sync()
        self._images.finish()
        self._lines.finish()

    def close(self) -> None:
        self._lines.close()


class TarWriter(RecordWriter):
    """Writes the uncompressed tar file `path`, with a folder for each person."""

    def __init__(self, path: Path, *, identity_names: Sequence[str]) -> None:
        super().__init__(path, identity_names=identity_names)
        self._file = DraftFile(path)

    def add(self, image: bytes, *, person: int, name: str) -> None:
        path = f"{checked(self.identity_names[person])}/{checked(name)}"
        self._file.write(tar_member(path, image, tarfile.PAX_FORMAT))

    def commit(self) -> Position:
        return {"length": self._file.sync()}

    def resume(self, position: Position) -> None:
        self._file.cut(position["length"])

    def finish(self) -> None:
        end = self._file.length + 2 * BLOCK
        self._file.write(bytes(2 * BLOCK + -end % _TAR_RECORD))
        self._file.finish()

    def close(self) -> None:
        self._file.close()


def checked(name: str) -> str:
    """`name`, if it may be that of a file; DataError if not."""
    if name != safe_name(name):
        raise DataError(f"{name[:200]!r} cannot be the name of a file; {safe_name(name)!r} could")
    return name

"""A folder of persons: every folder that holds images is one person.

    faces/Ann/1.jpg  faces/Ann/2.png  faces/Bob Lee/x.jpeg      ->  people "Ann", "Bob Lee"

People may lie deeper (faces/lfw/Ann/1.jpg); parents that all of them share are cut from their
names. Sorted names, so that labels are the same on every machine. Hidden files are ignored; images
directly in the top folder, which name no person, and other files among the images are left out with
a warning. Memory of the index: 8 bytes and the file name per image, a few hundred bytes per person.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from manyface.base.errors import DataError
from manyface.data.records.base import GroupedRecords, Warn, person_of, read_text_file
from manyface.data.records.files import read_whole
from manyface.data.records.naming import (
    check_distinct,
    is_hidden,
    is_image_name,
    is_left_out,
    left_out_warning,
    people_of_folders,
    suffix_of,
)
from manyface.data.records.store import LARGEST_IMAGE
from manyface.data.records.table import StringTable

log = logging.getLogger(__name__)


class FolderRecords(GroupedRecords):
    """Image files under `path`, one folder per person."""

    def __init__(self, path: Path, *, warn: Warn = log.warning) -> None:
        folders: list[str] = []
        counts: list[int] = []
        self._file_names = StringTable(self._collect(path, folders, counts, warn))
        if not folders:
            raise DataError(
                f"no images in {path}: expected one folder per person with image files in it"
            )
        names = people_of_folders(folders)
        check_distinct(names, str(path))
        self._root, self._folders = path, folders
        super().__init__(path, identity_names=names, images_per_identity=counts)

    @staticmethod
    def _collect(path: Path, folders: list[str], counts: list[int], warn: Warn) -> Iterator[str]:
        loose = 0
        others: Counter[str] = Counter()
        for folder, files in sorted_image_folders(path, others):
            if not folder:
                loose = len(files)
                continue
            folders.append(folder)
            counts.append(len(files))
            yield from files
        if loose and not folders:
            raise DataError(
                f"{loose} images lie directly in {path}: expected one folder per person; if this "
                f"is one person's folder, give its parent"
            )
        if loose:
            warn(f"{loose} images directly in {path} belong to no person and are left out")
        if text := left_out_warning(others, str(path)):
            warn(text)

    def read(self, index: int) -> bytes:
        return read_whole(self.describe(index), limit=LARGEST_IMAGE)

    def file_name(self, index: int) -> str:
        return self._file_names[index]

    def describe(self, index: int) -> str:
        person = person_of(self.first_images, index)
        return f"{self.path}/{self._folders[person]}/{self._file_names[index]}"

    def read_text(self, name: str) -> str:
        return read_text_file(self._root / name)

    def text_names(self) -> list[str]:
        return [path.name for path in self._root.iterdir() if path.is_file()]

    @property
    def index_bytes(self) -> int:
        return self._file_names.num_bytes + self.first_images.nbytes


def sorted_image_folders(root: Path, others: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """(relative folder, its image names), both sorted; follows links, each folder once.

    `others` counts, by suffix, other files that lie among images, and photos of kinds not read.
    """
    pending = [""]
    seen: set[str] = set()
    found: list[tuple[str, list[str]]] = []
    while pending:
        relative = pending.pop()
        real = os.path.realpath(root / relative)
        if real in seen:
            continue
        seen.add(real)
        rest: Counter[str] = Counter()
        files, folders = _list_folder(root / relative, rest)
        among_images = bool(files and relative)
        others += Counter(
            {s: n for s, n in rest.items() if is_left_out(s, among_images=among_images)}
        )
        # Sorted: of a folder and links to it, the first one gives the name.
        pending += [f"{relative}/{name}".lstrip("/") for name in sorted(folders, reverse=True)]
        if files:
            found.append((relative, sorted(files)))
    yield from sorted(found, key=lambda item: item[0])


def _list_folder(path: Path, rest: Counter[str]) -> tuple[list[str], list[str]]:
    """Image files and folders; `rest` counts other files by suffix."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif not is_image_name(entry.name):
                    rest[suffix_of(entry.name)] += 1
                elif _is_file_or_dangling(entry):
                    files.append(entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {path}: {error.strerror}") from None
    return files, folders


def _is_file_or_dangling(entry: "os.DirEntry[str]") -> bool:
    # A dangling link stays in, to be counted as a broken image; a pipe would block its reader.
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())

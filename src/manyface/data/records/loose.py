"""Image files that belong to nobody yet: named one by one, or lying directly in a folder.

Where people are asked for they are one nameless person; who wants to know asks `has_people`.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.data.records.base import GroupedRecords, Records, Warn, read_text_file
from manyface.data.records.files import read_whole
from manyface.data.records.folder import sorted_image_folders
from manyface.data.records.naming import is_image_name
from manyface.data.records.opening import open_records
from manyface.data.records.store import LARGEST_IMAGE

NOBODY = ""


class LooseRecords(GroupedRecords):
    """The image files `paths`, in this order; `path` is what they are called together.

    Args:
        people: of each file, if somebody has told; files of one person are neighbours.
    """

    def __init__(
        self, path: Path, paths: Sequence[Path], *, people: Sequence[str] | None = None
    ) -> None:
        self._paths = paths
        runs = [(name, len(list(run))) for name, run in groupby(people or [NOBODY] * len(paths))]
        super().__init__(
            path,
            identity_names=[name for name, _ in runs],
            images_per_identity=[count for _, count in runs],
        )

    def read(self, index: int) -> bytes:
        return read_whole(self._paths[index], limit=LARGEST_IMAGE)

    def file_name(self, index: int) -> str:
        return self._paths[index].name

    def describe(self, index: int) -> str:
        return str(self._paths[index])

    def read_text(self, name: str) -> str:
        return read_text_file(self._paths[0].parent / name)

    @property
    def index_bytes(self) -> int:
        return sum(len(str(path)) for path in self._paths)


def open_images(paths: Sequence[Path], *, warn: Warn, progress: Progress = no_progress) -> Records:
    """A set of people, as `open_records` opens it, a folder of loose images, or image files.

    Raises:
        DataError: something is not there, or sets and images are mixed.
    """
    if len(paths) == 1 and not _is_image_file(paths[0]):
        loose = _images_in(paths[0]) if paths[0].is_dir() else []
        if loose:
            return LooseRecords(paths[0], loose)
        return open_records(paths[0], warn=warn, progress=progress)
    for path in paths:
        if not path.exists():
            raise DataError(f"no such image: {path} (looked in {Path.cwd()})")
        if not _is_image_file(path):
            raise DataError(
                f"{path} is no image file; give one set of people, or image files, not both"
            )
    return LooseRecords(paths[0] if len(paths) == 1 else paths[0].parent, list(paths))


def has_people(records: Records) -> bool:
    """Whether the images belong to people."""
    return not isinstance(records, LooseRecords)


def _is_image_file(path: Path) -> bool:
    return is_image_name(path.name) and not path.is_dir()


def _images_in(folder: Path) -> list[Path]:
    """Images of a folder that has none in folders below it; else none: it may hold people."""
    if not any(is_image_name(path.name) for path in folder.iterdir()):
        return []  # a large set is not walked through for nothing
    found = list(sorted_image_folders(folder, Counter()))
    if [relative for relative, _ in found] != [""]:
        return []
    return [folder / name for name in found[0][1]]

"""A list file: one image per line, its path and its person.

    images/0001.jpg<TAB>17          path, TAB, label or name
    my photos/ann 1.jpg ann         or a space: the last word is the label, the path may hold spaces

Paths are relative to the list file. Labels are any text; if all are integers, people are ordered by
number, else by name. Empty lines and lines that begin with "#" are skipped. A line without label,
an image that does not exist and a path given to two people are errors that name the line; the same
line twice counts once. Memory of the index: 8 bytes and the path per image, a few hundred bytes per
person.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from manyface.base.errors import DataError
from manyface.data.records.base import GroupedRecords, read_text_file
from manyface.data.records.files import read_whole
from manyface.data.records.naming import person_name
from manyface.data.records.store import LARGEST_IMAGE
from manyface.data.records.table import StringTable


class ListRecords(GroupedRecords):
    """Images named by the list file `path`."""

    def __init__(self, path: Path) -> None:
        images_of: dict[str, list[str]] = {}
        for image, label in _read_entries(read_text_file(path), path):
            images_of.setdefault(label, []).append(image)
        if not images_of:
            raise DataError(f"{path} names no image: expected lines of path, TAB, label or name")
        self._folder = path.parent
        labels = sorted_labels(images_of)
        for label in labels:
            images_of[label].sort()
        self._paths = StringTable(image for label in labels for image in images_of[label])
        counts = [len(images_of[label]) for label in labels]
        super().__init__(path, identity_names=labels, images_per_identity=counts)

    def read(self, index: int) -> bytes:
        return read_whole(self._folder / self._paths[index], limit=LARGEST_IMAGE)

    def file_name(self, index: int) -> str:
        return Path(self._paths[index]).name

    def describe(self, index: int) -> str:
        return str(self._folder / self._paths[index])

    def read_text(self, name: str) -> str:
        return read_text_file(self._folder / name)

    @property
    def index_bytes(self) -> int:
        return self._paths.num_bytes + self.first_images.nbytes


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """By number if all are numbers, else by name."""
    labels = list(labels)
    try:
        return sorted(labels, key=lambda label: (int(label), label))
    except ValueError:
        return sorted(labels)


def _read_entries(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """(image path, label) of each line; DataError for lines that cannot be meant."""
    line_of: dict[str, tuple[int, str]] = {}
    missing: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        image, label = _split(line, number, path)
        first = line_of.setdefault(image, (number, label))
        if first[1] != label:
            raise DataError(
                f"{path}: {image} belongs to {first[1]!r} in line {first[0]} and to {label!r} in "
                f"line {number}; remove one of the two lines"
            )
        if first[0] != number:
            continue
        if not _is_file(path.parent / image):
            missing.append(f"line {number}: {image}")
        yield image, label
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(line_of)} images do not exist (first: {missing[0]}); "
            f"paths are taken relative to {path.parent}"
        )


def split_line(line: str) -> list[str]:
    """Path and label, if it has both: between them a TAB, else the last blank."""
    return line.split("\t") if "\t" in line else line.rsplit(maxsplit=1)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is longer than any can be
        return False


def _split(line: str, number: int, path: Path) -> tuple[str, str]:
    parts = [part.strip() for part in split_line(line)]
    if len(parts) != 2 or not all(parts):
        raise DataError(
            f"{path}, line {number}: expected path, TAB or space, label or name; "
            f"got {line.strip()[:80]!r}"
        )
    return parts[0], person_name(parts[1])

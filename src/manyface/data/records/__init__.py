"""Readers and writers of encoded images grouped by person, in the formats that people have."""

from pathlib import Path

from manyface.base.errors import DataError
from manyface.data.records.base import Records, labels_of, read_text_file
from manyface.data.records.folder import FolderRecords
from manyface.data.records.indexed import IndexedRecords
from manyface.data.records.kept import select_kept
from manyface.data.records.listfile import ListRecords
from manyface.data.records.opening import open_records
from manyface.data.records.subset import select_records
from manyface.data.records.tar import TarRecords

__all__ = [
    "FolderRecords",
    "IndexedRecords",
    "ListRecords",
    "Records",
    "TarRecords",
    "find_text",
    "labels_of",
    "open_records",
    "select_kept",
    "select_records",
]


def find_text(records: Records, name: str | Path) -> str:
    """The text of a list: from inside the data, from beside it, or from anywhere on disk."""
    places = [Path.cwd() / Path(name).expanduser()]
    if isinstance(records.path, Path):
        places.insert(0, records.path.parent / name)
    try:
        return records.read_text(str(name))
    except DataError as error:
        for place in places:
            if place.is_file():
                return read_text_file(place)
        looked = " or ".join(dict.fromkeys(map(str, places)))
        raise DataError(
            f"{error}; it is not on disk either ({looked}); give the path of one that is there"
        ) from None

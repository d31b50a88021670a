"""Readers of encoded images grouped by person: folder, tar file, list file."""

from collections.abc import Callable
from pathlib import Path

from manyface.base.errors import DataError
from manyface.data.records.base import Records, labels_of, read_text_file
from manyface.data.records.folder import FolderRecords
from manyface.data.records.headers import BLOCK, is_tar_header
from manyface.data.records.listfile import ListRecords
from manyface.data.records.subset import select_records
from manyface.data.records.tar import TarRecords

__all__ = [
    "FolderRecords",
    "ListRecords",
    "Records",
    "TarRecords",
    "find_text",
    "labels_of",
    "open_records",
    "select_records",
]

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK\x03\x04": "zip",
}


def open_records(path: str | Path) -> Records:
    """The reader for `path`: a folder of persons, an uncompressed tar of one, or a list file."""
    path = Path(path).expanduser()
    if path.is_dir():
        return FolderRecords(path)
    try:
        with path.open("rb") as file:
            head = file.read(BLOCK)
    except FileNotFoundError:
        raise DataError(
            f"no such data: {path} (looked in {Path.cwd()}); give the path of a folder of persons, "
            "of a tar file of one, or of a list"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return _reader_for(head, path)(path)


def _reader_for(head: bytes, path: Path) -> Callable[[Path], Records]:
    for magic, kind in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is compressed ({kind}): images are read in place, which needs a plain tar "
                f"file or a folder; unpack it first (images do not shrink, nothing is lost)"
            )
    if is_tar_header(head):
        return TarRecords
    if not head or b"\0" in head or path.suffix == ".tar":
        raise DataError(
            f"{path} is not data that can be read ({'unknown format' if head else 'empty'}): "
            f"expected a folder of persons, an uncompressed tar file of one, or a text list"
        )
    return ListRecords


def find_text(records: Records, name: str | Path) -> str:
    """The text of a list: from inside the data, from beside it, or from anywhere on disk."""
    places = [records.path.parent / name, Path.cwd() / Path(name).expanduser()]
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

"""Which reader takes a path: the format is recognised by content, never configured."""

import logging
from pathlib import Path

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.data.records.base import Records, Warn
from manyface.data.records.by_list import by_list_inside
from manyface.data.records.folder import FolderRecords
from manyface.data.records.headers import BLOCK, is_tar_header
from manyface.data.records.indexed import IndexedRecords
from manyface.data.records.listfile import ListRecords
from manyface.data.records.lmdb import LmdbStore
from manyface.data.records.parquet import ParquetStore
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.remote import Address, as_location, is_pattern
from manyface.data.records.shards import ShardStore
from manyface.data.records.store import RecordStore
from manyface.data.records.tar import TarRecords

log = logging.getLogger(__name__)

STORES: tuple[type[RecordStore], ...] = (RecordIOStore, LmdbStore, ParquetStore, ShardStore)
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK\x03\x04": "zip",
}


def open_records(
    path: str | Path, *, warn: Warn = log.warning, progress: Progress = no_progress
) -> Records:
    """The reader for `path`.

    Args:
        path: a folder of persons, an uncompressed tar file of one, a list file, or the files of
            one of `STORES`; or the address of tar shards ("s3://..."), or a name for several.
        warn: gets a line for what has to be left out.
        progress: told of records while an index is built.
    """
    path = as_location(path)
    if isinstance(path, Address) or (is_pattern(path) and not path.exists()):
        return IndexedRecords(ShardStore(path), warn=warn, progress=progress)
    head = _head(path)
    for kind in STORES:
        if (store := kind.recognise(path, head)) is not None:
            return IndexedRecords(store, warn=warn, progress=progress)
    if path.is_dir():
        return by_list_inside(FolderRecords(path, warn=warn), warn=warn)
    _check_readable(path, head)
    if not is_tar_header(head):
        return ListRecords(path)
    return by_list_inside(TarRecords(path, warn=warn), warn=warn)


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of a folder."""
    if path.is_dir():
        return b""
    if path.exists() and not (path.is_file() or path.is_block_device()):
        raise DataError(f"{path} is neither a file nor a folder: data is read in any order")
    try:
        with path.open("rb") as file:
            return file.read(BLOCK)
    except FileNotFoundError:
        raise DataError(
            f"no such data: {path} (looked in {Path.cwd()}); give the path of a folder of persons, "
            "of a tar file of one, a list, a train.rec, an LMDB, tar shards or Parquet files"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _check_readable(path: Path, head: bytes) -> None:
    for magic, kind in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is compressed ({kind}): images are read in place, which needs a plain tar "
                f"file or a folder; unpack it first (images do not shrink, nothing is lost)"
            )
    if head.startswith(_PICKLE) or path.suffix == ".bin":
        raise DataError(
            f"{path} is a verification set, pairs of faces without people: verify on it with "
            f"evaluation.pairs, look into it with manyface data pairs {path}"
        )
    if not is_tar_header(head) and (not head or b"\0" in head or path.suffix == ".tar"):
        raise DataError(
            f"{path} is not data that can be read ({'unknown format' if head else 'empty'}): "
            f"expected a folder of persons, an uncompressed tar file of one, a text list, or "
            "a train.rec"
        )

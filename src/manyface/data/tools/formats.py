"""The formats that a set can be written in: which class writes each, and how its path looks.

The one table to add a format to. Writers are imported when they are needed, because some want
libraries that are not everybody's.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from manyface.base.errors import ConfigError, DataError, WriteError
from manyface.data.records.writer import RecordWriter


@dataclass(frozen=True)
class Format:
    """How one format is written.

    Attributes:
        writer: module and class below manyface.data.records.
        suffixes: of paths that mean this format; the first is added to a path without one.
        in_order: records lie in the order in which they were written, so shuffling means something.
        beside: suffixes of what else is written, in the place of that of the path.
    """

    writer: str
    suffixes: tuple[str, ...]
    in_order: bool
    beside: tuple[str, ...] = ()

    def places(self, path: Path) -> list[Path]:
        """All that a set called `path` is written as."""
        return [path, *(path.with_suffix(suffix) for suffix in self.beside)]

    def open(self, path: Path, **options: Any) -> RecordWriter:
        """A writer for `path`."""
        module, _, name = self.writer.partition(":")
        made: RecordWriter = getattr(import_module(f"manyface.data.records.{module}"), name)(
            path, **options
        )
        return made


FORMATS = {
    "folder": Format("plain_writers:FolderWriter", (), in_order=False),
    "list": Format(
        "plain_writers:ListWriter", (".txt", ".lst", ".list", ".tsv"), in_order=False, beside=("",)
    ),
    "tar": Format("plain_writers:TarWriter", (".tar",), in_order=False),
    "recordio": Format(
        "recordio_writer:RecordIOWriter", (".rec",), in_order=True, beside=(".idx", ".lst")
    ),
    "lmdb": Format("lmdb:LmdbWriter", (".lmdb",), in_order=True),
    "shards": Format("shards:ShardWriter", (".shards",), in_order=True),
    "parquet": Format("parquet_writer:ParquetWriter", (".parquet",), in_order=True),
}


def format_for(path: Path, wanted: str | None) -> str:
    """The format of a set that is to be called `path`: the wanted one, or that of its suffix.

    Raises:
        ConfigError: there is no such format, or it cannot be told.
    """
    if wanted is not None:
        if wanted not in FORMATS:
            raise ConfigError(f"--to {wanted!r}: there are {', '.join(FORMATS)}")
        return wanted
    for name, about in FORMATS.items():
        if path.suffix in about.suffixes:
            return name
    if path.suffix and not path.is_dir():
        raise ConfigError(
            f"{path}: no format has the suffix {path.suffix!r}; say which with --to "
            f"({', '.join(FORMATS)})"
        )
    return "folder"


def path_for(path: Path, form: str) -> Path:
    """`path`, with a suffix where the format needs one: a folder gets `train.rec` inside."""
    suffixes = FORMATS[form].suffixes
    if form == "recordio" and path.suffix != ".rec":
        return path / "train.rec"
    if form in ("list", "tar") and not path.suffix:
        return path.with_name(path.name + suffixes[0])
    return path


def checked_target(path: Path, sources: Iterable[Path]) -> Path:
    """`path`, where it may be written; of a link what it leads to, where the drafts have to be.

    Raises:
        DataError: it is what is read, or lies in a folder that is read and would be part of that
            set, or it is a pipe or a device.
    """
    target = path.resolve() if path.is_symlink() else path
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise DataError(f"{path} is neither a file nor a folder; choose another name")
    for source in sources:
        _refuse_what_is_read(target, source)
        if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
            raise DataError(
                f"{path} lies in {source}, which is read, and would become a part of it; choose a "
                "place outside"
            )
    return target


def check_outputs(
    sources: Iterable[Path],
    *,
    whole: Iterable[Path | None] = (),
    streamed: Iterable[Path | None] = (),
) -> None:
    """Refuse files that could not be written, or must not, before hours are spent on them.

    Args:
        sources: what is read.
        whole: files that get their names when they are complete, None for no file.
        streamed: those that are opened where they are: a device or a pipe will do.

    Raises:
        DataError: one is what is read, or one is named twice. WriteError: nothing can be written
            there.
    """
    sources, seen = list(sources), set[Path]()
    for path, may_stream in [*((p, False) for p in whole), *((p, True) for p in streamed)]:
        if path is None or (may_stream and path.exists() and not (path.is_file() or path.is_dir())):
            continue
        for source in sources:
            _refuse_what_is_read(path, source)
        if path.resolve() in seen:
            raise DataError(f"{path} is to be written twice; choose two names")
        seen.add(path.resolve())
        _check_writable(path)


def _refuse_what_is_read(path: Path, source: Path) -> None:
    if path.exists() and source.exists() and path.samefile(source):
        raise DataError(f"{path} is what is read; choose another name")


def _check_writable(path: Path) -> None:
    folder = next(each for each in path.absolute().parents if each.exists())
    number = 0
    if path.exists() and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EEXIST
    elif not folder.is_dir():
        number = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EACCES
    if number:
        raise WriteError(path, OSError(number, os.strerror(number)))

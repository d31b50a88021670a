"""Files at an address ("s3://...", "http://...", chains with "::"), by fsspec: read by ranges.

Every file system of fsspec that answers range requests will do; some want a package of their own
and say so. An open connection is not used after a fork: another process opens its own.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from manyface.base.errors import DataError, to_install

_AT_ONCE = 16  # files that are asked for together
_BLOCK = 4 << 20  # of a file that is read from front to back
# {000..012} or {a,b}.
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_FOLDED = re.compile(r"(^|^.*::)([a-z][a-z0-9+.-]*):/(?!/)")
_MOST_FILES = 1 << 20


class Address(str):
    """Where a set lies that is on no disk of this machine; has what is asked of a path."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return self.rstrip("/").rpartition("/")[2]

    def is_file(self) -> bool:
        return False

    def is_dir(self) -> bool:
        return False


Location = Path | Address


class Readable(Protocol):
    """A file that can be read anywhere."""

    @property
    def path(self) -> Location: ...
    @property
    def size(self) -> int: ...
    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`; OSError if there are not so many."""
        ...


def as_location(path: str | os.PathLike[str]) -> Location:
    """An address, or a path with the user's home put in.

    An address that came through a `Path`, as from the command line, has lost a slash: it gets it
    back if there is no such file.
    """
    text = os.fspath(path)
    if isinstance(path, Path) and _FOLDED.match(text) and not path.exists():
        text = _FOLDED.sub(r"\1\2://", text)
    return Address(text) if "://" in text else Path(text).expanduser()


def is_pattern(location: Location) -> bool:
    """Whether it stands for several files: {000..012}, {a,b} or a wildcard."""
    return bool(_BRACES.search(str(location))) or "*" in str(location)


def expand(pattern: str) -> list[str]:
    """Each {000..012} and {a,b} put in words, as a shell does it: all combinations, in order.

    Raises:
        DataError: they are too many, a range runs backwards, or braces lie within others.
    """
    parts = _BRACES.split(pattern)  # text, first, last, words, text, ...
    choices, total = [[parts[0]]], 1
    for first, last, words, text in zip(*(parts[k::4] for k in range(1, 5)), strict=True):
        total *= words.count(",") + 1 if words else max(int(last) - int(first) + 1, 0)
        if not 0 < total <= _MOST_FILES:
            raise DataError(f"{pattern} stands for {total} files; expected 1 to {_MOST_FILES}")
        each = words.split(",") if words else _numbers(first, last)
        choices.append([f"{word}{text}" for word in each])
    found = ["".join(choice) for choice in product(*choices)]
    if _BRACES.search(found[0]):
        raise DataError(f"{pattern}: braces within braces are not read; name the files in full")
    return found


def _numbers(first: str, last: str) -> list[str]:
    """From one to the other, of one width if either is filled up with zeros."""
    is_filled = any(text.startswith("0") and len(text) > 1 for text in (first, last))
    width = max(len(first), len(last)) if is_filled else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


class RemoteFile:
    """The file `path` of the file system that `address` leads to.

    Attributes:
        version: changes with the content, as far as the file system tells.
    """

    def __init__(self, address: str, path: str, about: dict[str, Any]) -> None:
        self.path = Address(about["address"])
        self._address, self._remote = address, path
        self._process, self._system = 0, None
        if not isinstance(about.get("size"), int):
            raise DataError(f"{path}: its server does not tell its size, so no part can be read")
        self.size: int = about["size"]
        told = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
        self.version = " ".join(str(about[key]) for key in ("name", "size", *told) if key in about)

    def read(self, offset: int, count: int) -> bytes:
        with as_os_errors(self._remote):
            data: bytes = self._here().cat_file(self._remote, start=offset, end=offset + count)
        if len(data) != count:
            raise OSError(f"{self._remote}: {len(data)} of {count} bytes came")
        return data

    @contextmanager
    def streamed(self) -> Iterator[Readable]:
        """The same, faster from front to back."""
        with as_os_errors(self._remote):
            file = self._here().open(self._remote, "rb", block_size=_BLOCK, cache_type="readahead")
        with file:
            yield _Stream(self, file)

    def _here(self) -> Any:
        if self._process != os.getpid():
            self._system, _ = _open_system(self._address)
            self._process = os.getpid()
        return self._system


class _Stream:
    def __init__(self, remote: RemoteFile, file: Any) -> None:
        self.path, self.size = remote.path, remote.size
        self._file = file

    def read(self, offset: int, count: int) -> bytes:
        with as_os_errors(str(self.path)):
            self._file.seek(offset)
            data: bytes = self._file.read(count)
        if len(data) != count:
            raise OSError(f"{self.path}: {len(data)} of {count} bytes came")
        return data


def remote_files(address: Address, suffix: str) -> list[RemoteFile]:
    """What `address` stands for: files, or those in a folder that end in `suffix`.

    Raises:
        DataError: there is none, or fsspec or what it needs is missing.
    """
    try:
        with as_os_errors(address), ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(lambda each: _listed(each, suffix), expand(address)))
    except OSError as error:
        raise DataError(f"cannot read {address}: {error}") from None
    if not any(found):
        raise DataError(f"no {suffix} files at {address}")
    return [RemoteFile(source, path, about) for files in found for source, path, about in files]


def _listed(address: str, suffix: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Address of the file system, path and facts of each file."""
    system, path = _open_system(address)
    if "*" not in path:
        if path.endswith(suffix):
            return [(address, path, {**system.info(path), "address": address})]
        path = path.rstrip("/") + "/*" + suffix
    found = system.glob(path, detail=True)
    named = {name: {**found[name], "address": system.unstrip_protocol(name)} for name in found}
    return [(address, name, named[name]) for name in sorted(named)]


def _open_system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise DataError(
            f"{address}: data at an address needs the package fsspec; run: " + to_install("remote")
        ) from None
    try:
        system, path = url_to_fs(address)
    except ImportError as error:  # of the package for this kind of address
        raise DataError(f"cannot read {address}: {error}") from None
    except ValueError as error:
        raise DataError(f"cannot read {address}: {error}") from None
    return system, path


@contextmanager
def as_os_errors(what: str) -> Iterator[None]:
    """Each file system raises what its own library does."""
    try:
        yield
    except (OSError, DataError):
        raise
    except Exception as error:
        raise OSError(f"{what}: {error or type(error).__name__}") from error

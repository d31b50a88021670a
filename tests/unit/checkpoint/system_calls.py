"""The calls a checkpoint is made of, recorded, made to fail, and cut off as by a loss of power."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_ONE = threading.Lock()


@dataclass(frozen=True)
class Call:
    """One call: what it does and to which path; for a rename also where to, for a write what."""

    kind: str
    path: str
    to: str = ""
    data: bytes = b""


@dataclass
class Recorder:
    """Passes calls on to the system and notes them; the call number `fail_at` fails instead."""

    fail_at: int = -1
    number: int = 0  # errno of that failure
    calls: list[Call] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)  # of open descriptors

    def note(self, call: Call) -> None:
        with _ONE:
            self.calls.append(call)
            fails = len(self.calls) - 1 == self.fail_at
        if fails:
            raise OSError(self.number, os.strerror(self.number))

    @contextmanager
    def installed(self, folder: Path) -> Iterator[None]:
        """Calls about anything below `folder` are recorded."""
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "close", "mkdir")}
        real |= {name: getattr(os, name) for name in ("rename", "replace", "unlink", "rmdir")}

        def is_ours(path: Any) -> bool:
            return isinstance(path, str | Path) and str(path).startswith(str(folder))

        def open_(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if is_ours(path) and flags & os.O_CREAT:
                self.note(Call("create", str(path)))
            descriptor = real["open"](path, flags, *rest, **options)
            if is_ours(path):
                self.paths[descriptor] = str(path)
            return descriptor

        def write(descriptor: int, data: Any) -> int:
            if descriptor in self.paths:
                self.note(Call("write", self.paths[descriptor], data=bytes(data)))
            return real["write"](descriptor, data)

        def fsync(descriptor: int) -> None:
            if descriptor in self.paths:
                self.note(Call("fsync", self.paths[descriptor]))
            real["fsync"](descriptor)

        def close(descriptor: int) -> None:
            self.paths.pop(descriptor, None)
            real["close"](descriptor)

        def two_paths(name: str) -> Any:
            def call(old: Any, new: Any, **options: Any) -> None:
                if is_ours(old):
                    self.note(Call("rename", str(old), str(new)))
                real[name](old, new, **options)

            return call

        def one_path(name: str, kind: str) -> Any:
            def call(path: Any, *rest: Any, dir_fd: int | None = None, **options: Any) -> None:
                where = self.paths.get(dir_fd) if dir_fd is not None else None
                whole = str(path) if where is None else f"{where}/{path}"
                if is_ours(whole) and not (kind == "mkdir" and Path(whole).is_dir()):
                    self.note(Call(kind, whole))
                real[name](path, *rest, dir_fd=dir_fd, **options)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", open_)
            patch.setattr(os, "write", write)
            patch.setattr(os, "fsync", fsync)
            patch.setattr(os, "close", close)
            patch.setattr(os, "mkdir", one_path("mkdir", "mkdir"))
            patch.setattr(os, "unlink", one_path("unlink", "unlink"))
            patch.setattr(os, "rmdir", one_path("rmdir", "rmdir"))
            patch.setattr(os, "rename", two_paths("rename"))
            patch.setattr(os, "replace", two_paths("replace"))
            yield


@dataclass
class _Node:
    """A file or a directory: what programs see, and what is on the disk."""

    is_directory: bool
    data: bytes = b""
    synced: bytes = b""
    names: dict[str, "_Node"] = field(default_factory=dict)
    synced_names: dict[str, "_Node"] = field(default_factory=dict)


class Disk:
    """What a loss of power leaves of a folder after some calls.

    Data are there up to the file's last fsync, names up to the directory's. What was not forced may
    have reached the disk all the same, so there are three that may be found: nothing of it
    ("lost"), the names of it but no data ("names"), and all of it but half of the data ("half").
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = self._read(folder)

    def apply(self, call: Call) -> None:
        """Do what a call does."""
        parent, name = self._place(call.path)
        if call.kind in ("create", "mkdir"):
            parent.names[name] = _Node(call.kind == "mkdir")
        elif call.kind == "write":
            parent.names[name].data += call.data
        elif call.kind == "fsync":
            node = self._root if call.path == str(self.folder) else parent.names[name]
            node.synced = node.data
            node.synced_names = dict(node.names)
        elif call.kind == "rename":
            new_parent, new_name = self._place(call.to)
            new_parent.names[new_name] = parent.names.pop(name)
        else:
            parent.names.pop(name)

    def write_to(self, folder: Path, how: str) -> None:
        """Make `folder` what is found after the power came back."""
        self._write(self._root, folder, how)

    def _read(self, path: Path) -> _Node:
        """All that was there before is on the disk."""
        if not path.is_dir():
            return _Node(False, path.read_bytes(), path.read_bytes())
        names = {entry.name: self._read(entry) for entry in path.iterdir()}
        return _Node(True, names=names, synced_names=dict(names))

    def _place(self, path: str) -> tuple[_Node, str]:
        *folders, name = Path(path).relative_to(self.folder).parts or ("",)
        node = self._root
        for folder in folders:
            node = node.names[folder]
        return node, name

    def _write(self, node: _Node, path: Path, how: str) -> None:
        if not node.is_directory:
            unsynced = node.data[len(node.synced) :]
            half = unsynced[: len(unsynced) // 2] if how == "half" else b""
            path.write_bytes(node.synced + half)
            return
        path.mkdir()
        names = node.synced_names if how == "lost" else node.names
        for name, child in names.items():
            self._write(child, path / name, how)

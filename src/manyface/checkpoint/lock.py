"""One writer per run directory: two processes would delete each other's checkpoints.

The lock is held by the operating system (flock) and ends with the process however it dies, so there
is no stale lock to remove by hand. The file's text only says who holds it.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from manyface.base.errors import CheckpointError, WriteError
from manyface.base.files import is_first, open_lock

LOCK_NAME = "run.lock"


@contextmanager
def run_lock(directory: Path, *, instead: str = "give this run another name") -> Iterator[None]:
    """Hold the lock of a run directory; CheckpointError says who holds it already, and what to do
    `instead`.

    Folders that are made for it go again if nothing is put there: a refused run leaves none.
    """
    path = directory / LOCK_NAME
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_lock(path), "r+", encoding="utf-8")
    except OSError as error:
        raise WriteError(path, error) from error
    with file:
        if not is_first(file.fileno(), path):
            file.seek(0)
            raise CheckpointError(
                f"{directory} is in use by another process ({file.read().strip() or 'unknown'}); "
                f"wait for it, stop it, or {instead}"
            )
        try:
            _sign(path, file.fileno())
            yield
        finally:
            _take_back(path, made)


def _take_back(path: Path, made: list[Path]) -> None:
    with suppress(OSError):
        if made and [each.name for each in path.parent.iterdir()] == [LOCK_NAME]:
            path.unlink()
            for folder in made:
                folder.rmdir()


def _sign(path: Path, descriptor: int) -> None:
    holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    try:  # past the file's buffer, from which closing it would write again
        os.ftruncate(descriptor, 0)
        os.write(descriptor, holder.encode())
    except OSError as error:
        raise WriteError(path, error) from error

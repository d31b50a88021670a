"""One writer per run directory: two processes would delete each other's checkpoints.

The lock is held by the operating system (flock) and ends with the process however it dies, so there
is no stale lock to remove by hand. The file's text only says who holds it.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manyface.base.errors import CheckpointError

LOCK_NAME = "run.lock"


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory; CheckpointError says who holds it already."""
    path = directory / LOCK_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"cannot write in the run directory {directory}: {error.strerror} (errno {error.errno})"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CheckpointError(
                f"{directory} is in use by another process ({file.read().strip() or 'unknown'}); "
                "wait for it, stop it, or give this run another name"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        file.flush()
        yield

"""What a conversion remembers, so that it can be killed anywhere and go on.

Two files beside the destination: DST.convert.json says what is converted and how far it is, written
anew under another name and renamed; DST.convert.sums has the checksums of the records so far, 4
bytes each. Both go when the conversion is done. One process at a time holds the second.
"""

import fcntl
import glob
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from manyface.base.errors import DataError
from manyface.base.files import new_file
from manyface.data.records.store import UInt32Array
from manyface.data.records.writer import Position

WRITING, FINISHING, VERIFYING, DONE = "writing", "finishing", "verifying", "done"
_VERSION = 1


class Journal:
    """Of the conversion to `destination`; a context manager.

    Attributes:
        done: records that are safe.
        position: of the writer; None before its first, when it has written no record.
        stage: WRITING, FINISHING, VERIFYING or DONE.

    Raises:
        DataError: another process is at it.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(destination.name + ".convert.json")
        self._sums_path = destination.with_name(destination.name + ".convert.sums")
        self.done, self.stage = 0, WRITING
        self._is_new = False
        self.position: Position | None = None
        destination.parent.mkdir(parents=True, exist_ok=True)
        self._sums = self._sums_path.open("ab")
        try:
            fcntl.flock(self._sums, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._sums.close()
            raise DataError(f"another process is writing {destination}; wait for it") from None
        except OSError:
            pass  # a file system without locks

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._sums.close()
        if self._is_new and self.position is None:  # refused before anything was written
            self.path.unlink(missing_ok=True)
        if not self.path.exists():
            self._sums_path.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        """Whether a conversion was begun."""
        return self.path.is_file()

    def begin(self, job: dict[str, Any]) -> None:
        """From here on, what is found of the destination is of this conversion."""
        self._is_new = True
        self._sums.truncate(0)  # of a process that was killed before it came here
        self.save(job, done=0, position=None, stage=WRITING)

    def read(self, job: dict[str, Any]) -> None:
        """Go on where `job` was; DataError if what was begun is another one."""
        try:
            kept = json.loads(self.path.read_bytes())
            begun, self.stage = kept["job"], kept["stage"]
            self.done, position = int(kept["done"]), kept["position"]
            self.position = None if position is None else dict(position)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} cannot be read ({error}); remove it and what was begun"
            ) from None
        if different := [name for name in job if begun.get(name) != job[name]]:
            raise DataError(
                f"{self.destination} was begun with another {' and '.join(different)}; finish that "
                f"with the same command, or remove {self.path.name} and what was begun"
            )
        if self.stage != DONE and os.fstat(self._sums.fileno()).st_size < 4 * self.done:
            raise DataError(f"{self._sums_path} is cut off; remove it and what was begun")
        if self.stage != DONE:
            self._sums.truncate(4 * self.done)

    def add(self, checksums: list[int]) -> None:
        """Of the next records."""
        self._sums.write(np.array(checksums, np.uint32).tobytes())

    def save(
        self, job: dict[str, Any], *, done: int, position: Position | None, stage: str
    ) -> None:
        """Make what was added and `position` safe."""
        self._sums.flush()
        os.fsync(self._sums.fileno())
        self.done, self.position, self.stage = done, position, stage
        facts = {"version": _VERSION, "job": job, "stage": stage, "done": done,
                 "position": position}  # fmt: skip
        with new_file(self.path) as file:
            file.write(json.dumps(facts, indent=2).encode())

    def checksums(self) -> UInt32Array:
        """Of all records that are safe, in the order of writing: uint32 [done]."""
        self._sums.flush()
        if not self.done:
            return np.zeros(0, np.uint32)
        return np.memmap(self._sums_path, np.uint32, mode="r", shape=(self.done,))

    def remove(self, job: dict[str, Any]) -> None:
        """All is done; what a killed process left of the journal goes too."""
        self.save(job, done=self.done, position=self.position, stage=DONE)
        self._sums_path.unlink(missing_ok=True)
        for draft in self.path.parent.glob(f".{glob.escape(self.path.name)}-*"):
            draft.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

"""What a net makes of images, in parts that are files of one folder: killed anywhere, it goes on.

A part is written under another name and renamed. Who comes next makes those that are not there, on
as many ranks as there are then, which take turns and need a file system in common. A batch never
reaches over the end of a part, so what a net sees together depends on nothing else, and neither
does a bit of the result.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, WriteError
from manyface.base.files import new_file, written
from manyface.base.progress import Progress
from manyface.data.records.index_file import Arrays, map_arrays, write_arrays, wrong_hash
from manyface.parallel import Ranks

_JOB, _VERSION = "job.json", 1


def parts_folder(target: Path) -> Path:
    """Where the parts of `target` are made."""
    return target.with_name(target.name + ".parts")


def remove_parts(folder: Path) -> None:
    """What they hold is safe elsewhere, or no help."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class PartFiles:
    """The parts of `count` images.

    Attributes:
        folder: is made; `remove_parts` takes it away.
        count: of images, which are 0 to count - 1 here.
        stamp: a hash of the images of a part, by which parts of other images are known.
        batch_size: images that go through the net together.
        part_size: images of a part, the most that a kill loses.
    """

    folder: Path
    count: int
    stamp: Callable[[range], str]
    batch_size: int
    part_size: int

    def begin(self, job: Mapping[str, str]) -> None:
        """The folder holds parts of this job, or none yet.

        Args:
            job: what else the parts depend on, as the model's fingerprint.

        Raises:
            DataError: it holds something else. WriteError: it cannot be written.
        """
        sizes = {"images": self.count, "batch size": self.batch_size, "part size": self.part_size}
        whole_job = {**job, **{name: str(value) for name, value in sizes.items()}}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _begin(self.folder, whole_job)
        except OSError as error:
            raise WriteError(error.filename or self.folder, error) from error

    def make(
        self,
        embedded: Callable[[Sequence[range]], Iterator[Arrays]],
        ranks: Ranks,
        progress: Progress,
    ) -> None:
        """Those of this rank's parts that are not there.

        Args:
            embedded: gives for each batch of images its arrays.
            progress: gets this rank's images done and their number.

        Raises:
            DataError: a part cannot be read. WriteError: one cannot be written.
        """
        mine = range(self._num_parts)[ranks.rank :: ranks.size]
        missing = [number for number in mine if self._opened(number) is None]
        total = sum(len(self._span(number)) for number in mine)
        done = total - sum(len(self._span(number)) for number in missing)
        if missing:
            progress(done, total)
        batches = [self._batches(number) for number in missing]
        found = embedded(list(chain.from_iterable(batches)))
        for number, its_batches in zip(missing, batches, strict=True):
            made = []
            for batch in its_batches:
                made.append(next(found))
                done += len(batch)
                progress(done, total)
            self._write(number, _joined(made))

    def check(self) -> None:
        """DataError if a part is not there."""
        for number in range(self._num_parts):
            if self._opened(number) is None:
                raise DataError(
                    f"{self._path(number)} is missing or damaged: ranks need a common file system; "
                    "give the same command again to make what is missing"
                )

    def rows(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """The arrays `name` of the parts, which are there, each mapped while it is used: who kept
        all would keep as many files open. Those without rows are left out."""
        for number in range(self._num_parts):
            rows = map_arrays(self._path(number))[0][name]
            if len(rows):
                yield rows

    def array(self, name: str) -> npt.NDArray[Any]:
        """The same in memory, one behind the other; at most one row for an image."""
        found, done = np.zeros(0), 0
        for rows in self.rows(name):
            if not done:
                found = np.empty((self.count, *rows.shape[1:]), rows.dtype)
            found[done : done + len(rows)] = rows
            done += len(rows)
        return found[:done]

    @property
    def _num_parts(self) -> int:
        return -(-self.count // self.part_size)

    def _span(self, number: int) -> range:
        """The images of a part."""
        return range(self.count)[number * self.part_size : (number + 1) * self.part_size]

    def _batches(self, number: int) -> list[range]:
        span = self._span(number)
        return [span[i : i + self.batch_size] for i in range(0, len(span), self.batch_size)]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.part"

    def _opened(self, number: int) -> Arrays | None:
        """The arrays of a part that is whole and of these images, mapped; else None.

        DataError if there is a file that cannot be read.
        """
        path = self._path(number)
        try:
            arrays, notes = map_arrays(path)
            is_whole = json.loads(notes["hashes"]).keys() == arrays.keys()
            if not is_whole or wrong_hash(arrays, notes) is not None:
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return arrays if notes.get("images") == self.stamp(self._span(number)) else None

    def _write(self, number: int, arrays: Arrays) -> None:
        with written(self._path(number)) as file:
            write_arrays(file, arrays, {"images": self.stamp(self._span(number))})


def _begin(folder: Path, job: dict[str, str]) -> None:
    """`folder` holds parts of this job, or none yet."""
    path = folder / _JOB
    if not path.exists():
        if others := [each.name for each in folder.iterdir() if not each.name.startswith(".")]:
            raise DataError(f"{folder} holds other files ({others[0]}); choose another target")
        with new_file(path) as file:
            file.write(json.dumps({"version": _VERSION, "job": job}, indent=2).encode())
        return
    try:
        begun = json.loads(path.read_bytes())["job"]
        different = [name for name in job if begun.get(name) != job[name]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove {folder}") from None
    if different:
        raise DataError(
            f"{folder} was begun with another {' and '.join(different)}; finish that with the same "
            "command, or remove that folder"
        )


def _joined(batches: Sequence[Arrays]) -> Arrays:
    """Arrays of batches one behind the other; one without rows may have another shape."""
    return {
        name: np.concatenate([each[name] for each in batches if len(each[name])] or [first])
        for name, first in batches[0].items()
    }

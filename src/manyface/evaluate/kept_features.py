"""The features of a set, kept in files until it is judged: an evaluation that is killed goes on.

The distinct images are cut into parts of 1,024; each part is one file, written under another name
and renamed. Who comes next makes those that are not there, on as many ranks as there are then,
which take turns and need a file system in common. A batch never reaches over the end of a part, so
neither the kill nor the number of ranks changes a bit of a feature.

Parts of other images, another model or another batch size are no help, and are taken away: the
people and labels of all images are compared, and the pixels of the first one of each part.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import xxhash

from manyface.base.errors import DataError, WriteError
from manyface.base.files import new_file
from manyface.base.progress import Progress, no_progress
from manyface.data.records.index_file import Arrays, map_arrays, write_arrays, wrong_hash
from manyface.data.source import ImageSource, Int64Array
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.embed import EmbedFunction, check_finite, embedded_batches
from manyface.parallel import ALONE, Ranks, all_or_none

BEGUN, DONE = "the job of an evaluation", "features of all ranks"
_JOB, _SUFFIX, _PART = "job.json", ".part", 1024


@dataclass(frozen=True)
class Kept:
    """Where features are kept.

    Attributes:
        folder: is made; `remove_parts` (embedding_pass.py) takes it away.
        job: what features depend on beside the images, as the model's fingerprint.
    """

    folder: Path
    job: Mapping[str, str]


def embed_kept(
    embed: EmbedFunction,
    source: ImageSource,
    indices: Int64Array,
    kept: Kept,
    *,
    batch_size: int = 128,
    ranks: Ranks = ALONE,
    progress: Progress = no_progress,
) -> Float32Array:
    """As `embed_source`: features [N, D] of the images `indices` [N], by way of files.

    Of several ranks the first has them, the others get an array of none.

    Raises:
        DataError: an image cannot be used. NonFiniteError: a feature is not finite.
        WriteError: a part cannot be written.
    """
    distinct, inverse = np.unique(indices, return_inverse=True)
    work = _Work(embed, source, distinct, kept.folder, batch_size)
    with all_or_none(ranks, BEGUN):
        if ranks.rank == 0:
            work.begin(kept.job)
    with all_or_none(ranks, DONE):
        work.make(work.numbers()[ranks.rank :: ranks.size], progress)
    if ranks.rank > 0 or not len(distinct):
        return np.zeros((0, 0), np.float32)
    found = work.finished()
    is_in_order = len(distinct) == len(indices) and bool((distinct == indices).all())
    return found if is_in_order else found[inverse.reshape(-1)]


@dataclass(frozen=True)
class _Work:
    embed: EmbedFunction
    source: ImageSource
    images: Int64Array  # distinct
    folder: Path
    batch_size: int

    def numbers(self) -> list[int]:
        return list(range(-(-len(self.images) // _PART)))

    def begin(self, job: Mapping[str, str]) -> None:
        """The folder holds parts of this job, or none."""
        whole = {**job, "batch size": str(self.batch_size), "images": self._people()}
        text, path = json.dumps(whole, indent=2), self.folder / _JOB
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
                return
            for part in self.folder.glob(f"*{_SUFFIX}"):
                part.unlink()
            with new_file(path) as file:
                file.write(text.encode())
        except OSError as error:
            raise WriteError(error.filename or self.folder, error) from error

    def make(self, numbers: Sequence[int], progress: Progress) -> None:
        """Those of the parts that are not there."""
        missing = [number for number in numbers if self._opened(number) is None]
        total = sum(len(self._part(number)) for number in numbers)
        done = total - sum(len(self._part(number)) for number in missing)
        batches = {number: self._batches(number) for number in missing}
        found = embedded_batches(
            self.embed, self.source, list(chain.from_iterable(batches.values()))
        )
        for number, its_batches in batches.items():
            rows = []
            for batch in its_batches:
                rows.append(next(found))
                check_finite(rows[-1], batch, self.source.name)
                done += len(batch)
                progress(done, total)
            self._write(number, np.concatenate(rows))

    def finished(self) -> Float32Array:
        """The features of all images, [n, D]; DataError if a part is not there."""
        found: Float32Array | None = None
        for number in self.numbers():
            rows = self._opened(number)
            if rows is None:
                raise DataError(
                    f"{self._path(number)} is missing or damaged: ranks need a common file system; "
                    "give the same command again to make what is missing"
                )
            if found is None:
                found = np.empty((len(self.images), rows.shape[1]), np.float32)
            found[number * _PART : number * _PART + len(rows)] = rows
        return np.zeros((0, 0), np.float32) if found is None else found

    def _part(self, number: int) -> Int64Array:
        return self.images[number * _PART : (number + 1) * _PART]

    def _batches(self, number: int) -> list[Int64Array]:
        images = self._part(number)
        return [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}{_SUFFIX}"

    def _opened(self, number: int) -> Float32Array | None:
        """The features of a part that is whole and of these images, mapped; else None."""
        try:
            arrays, notes = map_arrays(self._path(number))
            rows = arrays["features"]
            is_whole = wrong_hash(arrays, notes) is None and len(rows) == len(self._part(number))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return rows if is_whole and notes.get("first image") == self._first_image(number) else None

    def _write(self, number: int, rows: Float32Array) -> None:
        arrays: Arrays = {"features": rows}
        try:
            with new_file(self._path(number)) as file:
                write_arrays(file, arrays, {"first image": self._first_image(number)})
        except OSError as error:
            raise WriteError(self._path(number), error) from error

    def _first_image(self, number: int) -> str:
        """A hash of its pixels."""
        pixels = self.source.load(self._part(number)[:1]).numpy()
        return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(pixels).data)

    def _people(self) -> str:
        """A hash of the images' places and labels, and of who these are."""
        digest = xxhash.xxh3_64(self.images.tobytes())
        digest.update(self.source.labels(self.images).tobytes())
        for name in self.source.identity_names:
            digest.update(f"{name}\n".encode(errors="replace"))
        return digest.hexdigest()

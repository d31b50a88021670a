"""results.json of a folder of studies: digest of a recipe -> what its run has shown.

Written whole after each run, so that studies stop and go on, and a cell that two studies share is
trained once. Times are not kept: several runs share the machine, and `cost` has them. Which pairs a
run has decided rightly is kept as bits: differences between methods are judged on equal pairs.
Of recipes of photos it keeps which photos they were, from their first run on.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, PositiveInt, model_validator

from manyface.base.errors import DataError
from manyface.base.files import written
from manyface.report.runs import Run
from manyface.studies.jobs import Job
from manyface.studies.kept import Count, Hexadecimal, Kept, Share, read_kept
from manyface.studies.photos import Fingerprint, PhotosOf

Entry = dict[str, Any]
Correct = npt.NDArray[np.bool_]  # [P], which pairs a run has decided rightly
VERSION = 1
_OF_FOLDS = 0.01  # an accuracy is a mean over folds, which may be unequal
_KEPT = (
    *("verification_accuracy", "auc", "tar_at_far", "steps", "batch_size", "num_identities"),
    *("precision", "device", "commit"),
)


class _Cosines(Kept):
    step: int
    own: FiniteFloat
    nearest_other: FiniteFloat


class _Group(Kept):
    group: str
    accuracy: Share


class _Updates(Kept):
    group: str
    own: FiniteFloat
    passive: FiniteFloat


class _Looks(Kept):
    cosines: Sequence[_Cosines] = ()
    groups: Sequence[_Group] = ()
    updates: Sequence[_Updates] = ()


class _Shown(Kept):
    """An entry, as far as pages are made of it."""

    cell: str
    seed: Count
    verification_accuracy: Share
    tar_at_far: dict[str, Share | None]
    steps: Count
    batch_size: Count
    num_identities: Count
    precision: str
    device: str
    commit: str | None
    looks: _Looks
    num_pairs: PositiveInt
    correct: Hexadecimal

    @model_validator(mode="after")
    def _bits_are_those_of_the_accuracy(self) -> Self:
        if len(self.correct) != 2 * math.ceil(self.num_pairs / 8):
            raise ValueError(f"correct has not the bits of {self.num_pairs} pairs")
        share = float(_decided(self.correct, self.num_pairs).mean())
        if not math.isclose(share, self.verification_accuracy, abs_tol=_OF_FOLDS):
            raise ValueError(
                f"verification_accuracy is {self.verification_accuracy}, but {share} of correct"
            )
        return self


class _File(Kept):
    version: Literal[1]
    photos: dict[str, Fingerprint] = Field(default_factory=dict)
    runs: dict[str, _Shown]


class Ledger:
    """What runs have shown, in a file; safe for several threads of one process.

    Args:
        path: of the file.
        photos: those that there are now.

    Raises:
        DataError: the file is no ledger, or one of other photos.
    """

    def __init__(self, path: Path, *, photos: PhotosOf = MappingProxyType({})) -> None:
        self.path, self._lock, self._photos = path, Lock(), photos
        content = _read(path) if path.exists() else {}
        self.runs: dict[str, Entry] = content.get("runs", {})
        self.photos: dict[str, dict[str, Any]] = content.get("photos", {})  # recipe -> fingerprint
        self._check_photos()

    def has(self, job: Job) -> bool:
        """Whether the run of `job` has been judged, with all that its study looks at."""
        found = self.runs.get(job.digest)
        return found is not None and all(look in found["looks"] for look in job.looks)

    def add(self, job: Job, run: Run, looks: dict[str, Any]) -> None:
        """Keep what `run` has shown; WriteError if the file cannot be written."""
        with self._lock:
            known = self.runs.get(job.digest, {}).get("looks", {})  # of another study's asking
            self.runs[job.digest] = _entry(job, run, {**known, **looks})
            if seen := self._photos.get(job.data):
                self.photos[seen.recipe] = seen.found.model_dump()
            self._write()

    def of(self, jobs: Sequence[Job]) -> list[Entry]:
        """What the runs of `jobs` have shown."""
        return [self.runs[job.digest] for job in jobs]

    def correct(self, job: Job) -> Correct:
        """Which pairs the run of `job` has decided rightly."""
        found = self.runs[job.digest]
        return _decided(found["correct"], found["num_pairs"])

    def _check_photos(self) -> None:
        for seen in self._photos.values():
            known = self.photos.get(seen.recipe)
            if known is not None and known != seen.found.model_dump():
                raise DataError(
                    f"{self.path} is of other photos than these for the tables of {seen.recipe}: "
                    f"expected {Fingerprint(**known)}, got {seen.found}; give --data those, or "
                    "these a folder of their own with -d"
                )

    def _write(self) -> None:
        runs = ",\n".join(f"{json.dumps(key)}: {json.dumps(v)}" for key, v in self.runs.items())
        photos = f'"photos": {json.dumps(self.photos)}, ' if self.photos else ""
        with written(self.path) as file:
            file.write(f'{{"version": {VERSION}, {photos}"runs": {{\n{runs}\n}}}}\n'.encode())


def _read(path: Path) -> dict[str, Any]:
    return read_kept(path, _File, what="results of studies", part="run")


def _decided(packed: str, num_pairs: int) -> Correct:
    bits = np.frombuffer(bytes.fromhex(packed), np.uint8)
    return np.unpackbits(bits, count=num_pairs).astype(bool)


def _entry(job: Job, run: Run, looks: dict[str, Any]) -> Entry:
    (scores,) = run.scores.values()
    correct = scores.folds.correct
    return {
        "cell": job.cell.name,
        "seed": job.seed,
        "overrides": list(job.cell.changes),
        **{key: run.row[key] for key in _KEPT},
        "looks": looks,
        "num_pairs": len(correct),
        "correct": np.packbits(correct).tobytes().hex(),
    }

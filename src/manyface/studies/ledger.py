"""results.json of a folder of studies: digest of a recipe -> what its run has shown.

Written whole after each run, so that studies stop and go on, and a cell that two studies share is
trained once. Times are not kept: several runs share the machine, and `cost` has them. Which pairs a
run has decided rightly is kept as bits: differences between methods are judged on equal pairs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.files import written
from manyface.report.runs import Run
from manyface.studies.jobs import Job

Entry = dict[str, Any]
Correct = npt.NDArray[np.bool_]  # [P], which pairs a run has decided rightly
VERSION = 1
_KEPT = (
    *("verification_accuracy", "auc", "tar_at_far", "steps", "batch_size", "num_identities"),
    *("precision", "device", "commit"),
)


class Ledger:
    """What runs have shown, in a file; safe for several threads of one process.

    Raises:
        DataError: the file is no ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        self.runs: dict[str, Entry] = _read(path) if path.exists() else {}

    def has(self, job: Job) -> bool:
        """Whether the run of `job` has been judged, with all that its study looks at."""
        found = self.runs.get(job.digest)
        return found is not None and all(look in found["looks"] for look in job.looks)

    def add(self, job: Job, run: Run, looks: dict[str, Any]) -> None:
        """Keep what `run` has shown; WriteError if the file cannot be written."""
        with self._lock:
            known = self.runs.get(job.digest, {}).get("looks", {})  # of another study's asking
            self.runs[job.digest] = _entry(job, run, {**known, **looks})
            self._write()

    def of(self, jobs: Sequence[Job]) -> list[Entry]:
        """What the runs of `jobs` have shown."""
        return [self.runs[job.digest] for job in jobs]

    def correct(self, job: Job) -> Correct:
        """Which pairs the run of `job` has decided rightly."""
        found = self.runs[job.digest]
        packed = np.frombuffer(bytes.fromhex(found["correct"]), np.uint8)
        return np.unpackbits(packed, count=found["num_pairs"]).astype(bool)

    def _write(self) -> None:
        runs = ",\n".join(f"{json.dumps(key)}: {json.dumps(v)}" for key, v in self.runs.items())
        with written(self.path) as file:
            file.write(f'{{"version": {VERSION}, "runs": {{\n{runs}\n}}}}\n'.encode())


def _read(path: Path) -> dict[str, Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}, expected {VERSION}")
        found: dict[str, Entry] = content["runs"]
        if not isinstance(found, dict):
            raise ValueError(f"runs are a {type(found).__name__}, expected a table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no results of studies: {error}; move it away to begin anew"
        ) from error
    return found


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

"""What a run left on disk, read and checked: the report knows runs by their files only.

    config.toml  events.jsonl  result.json  evaluation/<set>.npz  evaluation/<set>-errors.npz

A run that is still going, or was stopped, has no result.json yet: what there is gets shown. A
folder that holds runs stands for all of them. Where it has a results.json (`manyface demo`), the
methods listed there that have no folder of their own (the baselines) are shown too.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.evaluate.metrics import FoldAccuracy, kfold_accuracy
from manyface.evaluate.result import Mistakes
from manyface.observe import read_events

log = logging.getLogger(__name__)

Row = dict[str, Any]
Warn = Callable[[str], None]
_RESULT, _EVENTS, _LISTING = "result.json", "events.jsonl", "results.json"
_ERRORS = "-errors"


@dataclass(frozen=True)
class PairScores:
    """Scores of every pair of one set; identities are there to resample people."""

    similarity: npt.NDArray[np.float32]  # [P]
    same: npt.NDArray[np.bool_]  # [P]
    fold: npt.NDArray[np.int64]  # [P]
    left_identity: npt.NDArray[np.int64] | None  # [P]
    right_identity: npt.NDArray[np.int64] | None  # [P]
    pairs: bytes  # equal for two runs that were scored on the same pairs in the same order

    @cached_property
    def folds(self) -> FoldAccuracy:
        return kfold_accuracy(self.similarity, self.same, self.fold)


@dataclass(frozen=True)
class Run:
    """One run as the report sees it. `row` is its result.json, {} while there is none."""

    directory: Path
    name: str
    row: Row
    events: list[Row]
    config: str
    scores: dict[str, PairScores]  # by set
    mistakes: dict[str, Mistakes]  # by set

    def events_of(self, kind: str) -> list[Row]:
        return [event for event in self.events if event.get("kind") == kind]


def read_runs(
    directories: Sequence[Path | str], *, warn: Warn = log.warning
) -> tuple[list[Run], list[Row]]:
    """The runs in `directories`, and rows of methods that have no run of their own (baselines)."""
    if not directories:
        raise DataError("no run to report: name at least one run directory")
    runs: list[Run] = []
    rows: list[Row] = []
    for directory in map(Path, directories):
        for place in [directory] if _is_one(directory) else _inside(directory) or [directory]:
            found, listed = _read_place(place, warn)
            runs += found
            rows += listed
    return _distinct_names(runs), rows


def _read_place(directory: Path, warn: Warn) -> tuple[list[Run], list[Row]]:
    """A run, or what a demo has left."""
    if _is_run(directory) or not (directory / _LISTING).is_file():
        return [read_run(directory, warn=warn)], []
    runs = [read_run(path, warn=warn) for path in _inside(directory)]
    listed = _read_json(directory / _LISTING).get("methods", [])
    names = [row.get("name") for row in listed]
    runs.sort(key=lambda run: names.index(run.name) if run.name in names else len(names))
    return runs, [row for row in listed if row.get("name") not in {run.name for run in runs}]


def _inside(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*/") if _is_one(path))


def _is_one(directory: Path) -> bool:
    return _is_run(directory) or (directory / _LISTING).is_file()


def _is_run(directory: Path) -> bool:
    return (directory / _RESULT).exists() or (directory / _EVENTS).exists()


def read_run(directory: Path | str, *, warn: Warn = log.warning) -> Run:
    """Read one run; what is missing or broken is a DataError that names the file."""
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory} is not a run: there is no such directory")
    if not _is_run(directory):
        raise DataError(
            f"{directory} is not a run: it holds neither result.json nor events.jsonl, nor folders "
            "that do; name the directory that `manyface train` printed"
        )
    result, events_path = directory / _RESULT, directory / _EVENTS
    row = _read_json(result) if result.exists() else {}
    config = directory / "config.toml"
    try:
        events = read_events(events_path, warn=warn) if events_path.exists() else []
        text = config.read_text(encoding="utf-8") if config.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the run {directory}: {error}") from error
    arrays = sorted((directory / "evaluation").glob("*.npz"))
    return Run(
        directory=directory,
        name=str(row.get("name") or directory.name),
        row=row,
        events=events,
        config=text,
        scores={path.stem: _read_scores(path) for path in arrays if not _is_errors(path)},
        mistakes={
            path.stem.removesuffix(_ERRORS): _read_mistakes(path)
            for path in arrays
            if _is_errors(path)
        },
    )


def _is_errors(path: Path) -> bool:
    return path.stem.endswith(_ERRORS)


def _read_json(path: Path) -> Row:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is broken: {error}; train or evaluate again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is broken: expected a JSON object, got {type(content).__name__}")
    return content


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    try:
        # Opened here, so that it is closed whatever np.load finds in it.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is broken: {error}; run `manyface evaluate` again") from error
    missing = [name for name in names if name not in arrays]
    lengths = {len(arrays[name]) for name in names if name in arrays}
    if missing or len(lengths) != 1:
        raise DataError(
            f"{path} is broken: expected the arrays {', '.join(names)} of one length, "
            f"got {', '.join(arrays) or 'none'}; run `manyface evaluate` again"
        )
    return arrays


def _read_scores(path: Path) -> PairScores:
    arrays = _read_arrays(path, ["similarity", "same", "fold"])
    which = ["same", "fold", *(name for name in ("left", "right") if name in arrays)]
    return PairScores(
        similarity=arrays["similarity"],
        same=arrays["same"].astype(bool),
        fold=arrays["fold"].astype(np.int64),
        left_identity=arrays.get("left_identity"),
        right_identity=arrays.get("right_identity"),
        pairs=b"".join(arrays[name].astype(np.int64).tobytes() for name in which),
    )


def _read_mistakes(path: Path) -> Mistakes:
    arrays = _read_arrays(path, ["left", "right", "similarity", "same"])
    for side in ("left", "right"):
        if arrays[side].dtype != np.uint8 or arrays[side].ndim != 4:
            raise DataError(f"{path} is broken: {side} must be uint8 pictures [K, S, S, 3]")
    return Mistakes(
        arrays["left"], arrays["right"], arrays["similarity"], arrays["same"].astype(bool)
    )


def _distinct_names(runs: list[Run]) -> list[Run]:
    """Runs of one name (the same recipe twice) are told apart by their directory."""
    names = [run.name for run in runs]
    return [
        Run(**{**vars(run), "name": f"{run.name} ({run.directory})"})
        if names.count(run.name) > 1
        else run
        for run in runs
    ]

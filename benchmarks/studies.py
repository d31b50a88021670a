"""What studies of many runs share: run each once, stop and go on, compare on equal pairs."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from provenance import ROOT

sys.path.insert(0, str(ROOT / "src"))

from manyface.evaluate import Resampler, accuracy_difference

Correct = npt.NDArray[np.bool_]  # [P], which pairs a run has decided rightly


def train(recipe: Path, name: str, overrides: Sequence[str], *, runs: Path) -> Path:
    """The folder of the run `name`, finished, on one thread; it goes on from where it stands."""
    directory = runs / name
    if (directory / "result.json").exists():
        return directory
    command = [sys.executable, "-m", "manyface", "train", str(recipe), "--no-summary"]
    for override in [f"run.directory={runs}", f"run.name={name}", "run.threads=1", *overrides]:
        command += ["--set", override]
    if (directory / "checkpoints").exists():
        command += ["--resume"]
    elif directory.exists():  # it was stopped before its first checkpoint
        command += ["--force"]
    subprocess.run(command, check=True)
    return directory


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy of each seed, mean and spread, and what the runs cost, of their result.json."""
    accuracies = [row["verification_accuracy"] for row in rows]
    return {
        "accuracy": accuracies,
        "mean_accuracy": float(np.mean(accuracies)),
        "std_over_seeds": float(np.std(accuracies, ddof=1)) if len(rows) > 1 else None,
        "auc": [row["auc"] for row in rows],
        "tar_at_far": [row["tar_at_far"] for row in rows],
        "minutes": [round(row["total_seconds"] / 60, 1) for row in rows],
        "images_per_second": [round(row["images_per_second"], 1) for row in rows],
        "peak_memory_mib": [round(row["peak_memory_bytes"] / 2**20) for row in rows],
        "precision": rows[0]["precision"],
        "commit": rows[0]["commit"],
    }


def difference(
    first: Sequence[Correct],
    second: Sequence[Correct],
    *,
    fold: npt.NDArray[np.int64],
    resampler: Resampler,
) -> dict[str, Any]:
    """Accuracy of `first` less `second` in points: of each seed, and of the means over seeds.

    The interval of the means resamples the people of the pairs; a pair counts with the share of the
    seeds that decide it rightly. It does not hold the spread over seeds: that is in `of_each_seed`.
    """
    found = [
        accuracy_difference(one, two, fold, resampler)
        for one, two in zip(first, second, strict=True)
    ]
    shares = [np.mean(group, axis=0) for group in (first, second)]
    mean = accuracy_difference(shares[0], shares[1], fold, resampler)
    points = [[round(100 * v, 2) for v in (d.value, d.low, d.high)] for d in [*found, mean]]
    return {"of_each_seed": points[:-1], "of_the_means": points[-1], "unit": "points, 95 %"}

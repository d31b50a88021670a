"""Full FC and Partial FC 0.1 on LFW, three seeds each: accuracy, cost, and what tells them apart.

    python benchmarks/lfw.py lfw-112.tar [--runs runs/lfw] [--jobs 2]

Runs recipes/lfw.toml where a run is not finished yet (two at a time, one thread each, on two
cores; a stopped run is gone on with), then writes results/lfw.json. Every figure is of the last
step, on pairsDevTest, whose people nothing was trained or chosen on.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.evaluate import Resampler, accuracy_difference
from manyface.report.runs import PairScores, Run, read_run

METHODS = {"full": [], "partial": ["head.sample_rate=0.1", "head.m=0.54"]}
SEEDS = (0, 1, 2)
PAIRS = "pairsDevTest"


def train(name: str, overrides: list[str], *, runs: Path) -> None:
    """The run `name`, from where it stands; nothing if it is finished."""
    directory = runs / name
    if (directory / "result.json").exists():
        return
    command = [sys.executable, "-m", "manyface", "train", str(ROOT / "recipes" / "lfw.toml")]
    for override in [f"run.directory={runs}", f"run.name={name}", "run.threads=1", *overrides]:
        command += ["--set", override]
    if (directory / "checkpoints").exists():
        command += ["--resume"]
    subprocess.run(command, check=True)


def summary(runs: list[Run]) -> dict[str, Any]:
    """Accuracy of each seed, mean and spread, and what the runs cost."""
    rows = [run.row for run in runs]
    accuracies = [row["verification_accuracy"] for row in rows]
    return {
        "accuracy": accuracies,
        "mean_accuracy": float(np.mean(accuracies)),
        "std_over_seeds": float(np.std(accuracies, ddof=1)),
        "auc": [row["auc"] for row in rows],
        "tar_at_far": [row["tar_at_far"] for row in rows],
        "minutes": [round(row["total_seconds"] / 60, 1) for row in rows],
        "images_per_second": [round(row["images_per_second"], 1) for row in rows],
        "peak_memory_mib": [round(row["peak_memory_bytes"] / 2**20) for row in rows],
        "head": rows[0]["head"],
        "num_identities": rows[0]["num_identities"],
        "commit": rows[0]["commit"],
    }


def difference(full: list[PairScores], partial: list[PairScores]) -> dict[str, Any]:
    """Full FC minus Partial FC in points: each seed's paired difference, and that of the means.

    The interval of the mean resamples the people of the pairs; a pair counts with the share of the
    seeds that decide it rightly.
    """
    first = full[0]
    resampler = Resampler(first.same, first.left_identity, first.right_identity)
    found = [
        accuracy_difference(one.folds.correct, two.folds.correct, one.fold, resampler)
        for one, two in zip(full, partial, strict=True)
    ]
    shares = [np.mean([s.folds.correct for s in group], axis=0) for group in (full, partial)]
    mean = accuracy_difference(shares[0], shares[1], first.fold, resampler)
    points = [[round(100 * v, 2) for v in (d.value, d.low, d.high)] for d in [*found, mean]]
    return {"of_each_seed": points[:-1], "of_the_means": points[-1], "unit": "points, 95 %"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/lfw"))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [
            pool.submit(
                train,
                f"{method}-s{seed}",
                [f"data.path={arguments.data.resolve()}", f"run.seed={seed}", *overrides],
                runs=arguments.runs.resolve(),
            )
            for seed in SEEDS
            for method, overrides in METHODS.items()
        ]
        for job in jobs:
            job.result()
    groups = {
        method: [read_run(arguments.runs / f"{method}-s{seed}") for seed in SEEDS]
        for method in METHODS
    }
    scores = {method: [run.scores[PAIRS] for run in runs] for method, runs in groups.items()}
    result: dict[str, Any] = {method: summary(runs) for method, runs in groups.items()}
    result["full_minus_partial"] = difference(scores["full"], scores["partial"])
    print(json.dumps(result, indent=2))
    print(write_result("lfw", result))


if __name__ == "__main__":
    main()

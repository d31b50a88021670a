"""Full FC and Partial FC 0.1 on LFW, three seeds each: accuracy, cost, and what tells them apart.

    python benchmarks/lfw.py lfw-112.tar [--runs runs/lfw] [--jobs 2]

Runs recipes/lfw.toml where a run is not finished yet (two at a time, one thread each, on two
cores; a stopped run is gone on with), then writes results/lfw.json. Every figure is of the last
step, on pairsDevTest, whose people nothing was trained or chosen on.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from provenance import ROOT, write_result
from studies import difference, summary, train

from manyface.evaluate import Resampler
from manyface.report.runs import Run, read_run

METHODS = {"full": (), "partial": ("head.sample_rate=0.1", "head.m=0.54")}
SEEDS = (0, 1, 2)
PAIRS = "pairsDevTest"


def main() -> None:
    """Run what is missing, then write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/lfw"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    groups = train_all(options.data.resolve(), options.runs.resolve(), jobs=options.jobs)
    result: dict[str, Any] = {
        method: {
            **summary([run.row for run in runs]),
            "head": runs[0].row["head"],
            "num_identities": runs[0].row["num_identities"],
        }
        for method, runs in groups.items()
    }
    result["full_minus_partial"] = compare(groups["full"], groups["partial"])
    print(json.dumps(result, indent=2))
    print(write_result("lfw", result))


def train_all(data: Path, runs: Path, *, jobs: int) -> dict[str, list[Run]]:
    """The finished runs of each method, seed by seed; `jobs` are trained at a time."""
    recipe = ROOT / "recipes" / "lfw.toml"
    with ThreadPoolExecutor(jobs) as pool:
        started = [
            (method, pool.submit(train, recipe, f"{method}-s{seed}", overrides, runs=runs))
            for seed in SEEDS
            for method, changes in METHODS.items()
            for overrides in [(f"data.path={data}", f"run.seed={seed}", *changes)]
        ]
        finished = [(method, read_run(job.result())) for method, job in started]
    return {method: [run for name, run in finished if name == method] for method in METHODS}


def compare(full: list[Run], partial: list[Run]) -> dict[str, Any]:
    """Full FC minus Partial FC, paired."""
    pairs = full[0].scores[PAIRS]
    correct = [[run.scores[PAIRS].folds.correct for run in runs] for runs in (full, partial)]
    resampler = Resampler(pairs.same, pairs.left_identity, pairs.right_identity)
    return difference(*correct, fold=pairs.fold, resampler=resampler)


if __name__ == "__main__":
    main()

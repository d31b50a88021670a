"""F2C against full FC, Partial FC and Virtual FC at an equal budget of images, and its ablations.

    python benchmarks/f2c_study.py [--data lfw-112.tar] [--sets synthetic lfw] [--jobs 2]

One run for each cell and seed, on one thread, `--jobs` at a time. What a run has shown is kept in
results/f2c_study.json under a digest of its recipe, so that the command may be stopped at any time,
cells of equal recipes run once, and a recipe that changes runs anew. At the end, and with --tables
alone, the tables are printed.

The budget, distinct training images, is the same for every method of a set. LFW's people and pairs
are those of recipes/lfw.toml; nothing here was chosen on pairsDevTest.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from provenance import RESULTS, ROOT, write_result
from studies import Correct, difference, train

from manyface.config import Config, load_config
from manyface.evaluate import PairSet, Resampler
from manyface.report.runs import Run, read_run
from manyface.train.build import build_pairs

SEEDS = (0, 1, 2)
BASELINE, TENTH = "full FC", "F2C 10 %"
LONGER = ("full FC, twice the images", "F2C 10 %, twice the images")  # where that is minutes
LARGER_MARGIN = "margin larger by ln(10) / scale"  # docs/heads.md: a tenth of the classes
Cells = Mapping[str, tuple[str, ...]]  # name -> overrides


@dataclass(frozen=True)
class Dataset:
    """The recipe and the overrides that all methods of a set share; `more` adds to some cells."""

    recipe: Path
    shared: tuple[str, ...]
    pairs: str
    more: Cells


DATASETS = {
    "synthetic": Dataset(
        recipe=ROOT / "src" / "manyface" / "cli" / "demo.toml",
        shared=(
            "data.synthetic.long_tail=100",
            "data.synthetic.difficulty=faces-1",
            "schedule.steps=2000",
            "evaluation.every_steps=0",
        ),
        pairs="synthetic",
        more={
            **dict.fromkeys(LONGER, ("schedule.steps=4000",)),
            LARGER_MARGIN: ("head.m=0.44",),
        },
    ),
    "lfw": Dataset(
        recipe=ROOT / "recipes" / "lfw.toml",
        shared=("schedule.epochs=10", "backbone.widths=[64, 128]"),
        pairs="pairsDevTest",
        more={"Partial FC 0.1": ("head.m=0.54",), LARGER_MARGIN: ("head.m=0.54",)},
    ),
}
F2C = ("head.method=f2c",)
METHODS: Cells = {
    BASELINE: (),
    LONGER[0]: (),
    "Partial FC 0.1": ("head.sample_rate=0.1",),
    "F2C 100 %": (*F2C, "pool.ratio=1.0"),
    "F2C 30 %": (*F2C, "pool.ratio=0.3"),
    TENTH: (*F2C, "pool.ratio=0.1"),
    LONGER[1]: (*F2C, "pool.ratio=0.1"),
    "F2C 1 %": (*F2C, "pool.ratio=0.01"),
    "Virtual FC 10 %": ("head.method=virtual", "pool.ratio=0.1", "pool.identity_share=1.0"),
}
# Where the ablations begin, as near to the paper as it says: it leaves decay and weight open.
BASE = ("pool.identity_share=0.5", "pool.features=1", "pool.decay=0.99", "pool.outlier_weight=1.0")
ABLATED = "dual loader 1:1"
# Each changes the base in one thing; the first is the base.
ABLATIONS: dict[str, tuple[str, ...]] = {
    ABLATED: ("pool.identity_share=0.5",),
    "identity loader only": ("pool.identity_share=1.0",),
    "instance loader only": ("pool.identity_share=0.0",),
    "dual loader 2:1": ("pool.identity_share=0.6666666666666666",),
    "one slot": ("pool.features=1",),
    "two slots": ("pool.features=2",),
    "single pass": ("pool.passes=1",),
    "double pass": ("pool.passes=2",),
    "decay 0.9": ("pool.decay=0.9",),
    "decay 0.99": ("pool.decay=0.99",),
    "decay 0.999": ("pool.decay=0.999",),
    "outlier weight 0": ("pool.outlier_weight=0.0",),
    "outlier weight 1": ("pool.outlier_weight=1.0",),
    "outlier weight 8": ("pool.outlier_weight=8.0",),
    "prefill": ("pool.prefill=true",),
    LARGER_MARGIN: (),
    "official preset": ("pool.preset=official",),
}


@dataclass(frozen=True)
class Job:
    """The run of a cell and a seed."""

    dataset: str
    cell: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        cell = "".join(c if c.isalnum() or c == "." else "-" for c in self.cell.lower())
        return f"{cell.strip('-')}-s{self.seed}"

    @cached_property
    def config(self) -> Config:
        return load_config(DATASETS[self.dataset].recipe, self.overrides)

    @cached_property
    def digest(self) -> str:
        """Of what the recipe changes and of the whole pool, less where it runs and photos lie."""
        table = self.config.model_dump(mode="json", exclude_defaults=True)
        if self.config.head.method != "full":
            table["pool"] = self.config.pool.model_dump(mode="json")
        table["run"] = {"seed": self.seed}
        table["data"].pop("path", None)
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


class Results:
    """results/f2c_study.json: digest -> what the run has shown; written after each run."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        self.runs: dict[str, Any] = json.loads(path.read_text())["runs"] if path.exists() else {}

    def add(self, job: Job, run: Run) -> None:
        """Keep what `run` has shown."""
        with self._lock:
            self.runs[job.digest] = entry(job, run)
            write_result("f2c_study", {"runs": self.runs}, self.path)

    def correct(self, job: Job, num_pairs: int) -> Correct:
        """Which pairs the run of `job` has decided rightly."""
        packed = np.frombuffer(bytes.fromhex(self.runs[job.digest]["correct"]), np.uint8)
        return np.unpackbits(packed, count=num_pairs).astype(bool)


def entry(job: Job, run: Run) -> dict[str, Any]:
    """What is kept of a run."""
    keys = (
        *("verification_accuracy", "auc", "tar_at_far", "images_per_second", "train_seconds"),
        *("total_seconds", "peak_memory_bytes", "steps", "batch_size", "precision", "commit"),
    )
    correct = run.scores[DATASETS[job.dataset].pairs].folds.correct
    return {
        "dataset": job.dataset,
        "cell": job.cell,
        "seed": job.seed,
        **{key: run.row[key] for key in keys},
        "correct": np.packbits(correct).tobytes().hex(),
    }


def jobs_of(
    dataset: str, cells: Cells, data: Path | None, seeds: Sequence[int] = SEEDS
) -> list[Job]:
    """The runs of a set's cells, seed by seed."""
    chosen = DATASETS[dataset]
    where = () if data is None or dataset == "synthetic" else (f"data.path={data.resolve()}",)
    return [
        Job(dataset, cell, seed, (*where, *chosen.shared, *changes, f"run.seed={seed}"))
        for seed in seeds
        for cell, changes in cells.items()
    ]


def base_of(cell: str) -> tuple[str, ...]:
    """What an ablation starts from; a preset stands for itself."""
    return () if cell == "official preset" else BASE


def cells_of(dataset: str) -> tuple[Cells, Cells]:
    """The cells of both tables: methods, and ablations of one of them."""
    more = DATASETS[dataset].more
    methods = {
        cell: (*changes, *more.get(cell, ()))
        for cell, changes in METHODS.items()
        if cell not in LONGER or cell in more
    }
    ablations = {
        cell: (*METHODS[TENTH], *base_of(cell), *changes, *more.get(cell, ()))
        for cell, changes in ABLATIONS.items()
    }
    return methods, ablations


def in_order(sets: Sequence[str], data: Path | None) -> list[Job]:
    """All runs: the ablations come first, since they choose the defaults of the other table."""
    jobs = []
    for name in sets:
        methods, ablations = cells_of(name)
        for cells in ({BASELINE: methods[BASELINE]}, ablations, methods):
            jobs += jobs_of(name, cells, data)
    return jobs


def run_all(jobs: Sequence[Job], results: Results, *, runs: Path, at_once: int) -> None:
    """Train what the results lack."""
    wanted = {job.digest: job for job in reversed(jobs)}  # the first cell of equal ones names it
    missing = {d: wanted[d] for d in dict.fromkeys(j.digest for j in jobs) if d not in results.runs}

    def run(number: int, job: Job) -> None:
        print(f"[{number} of {len(missing)}] {job.dataset}: {job.cell}, seed {job.seed}")
        recipe = DATASETS[job.dataset].recipe
        name = f"{job.name}-{job.digest}"  # a recipe that has changed is another run
        directory = train(recipe, name, job.overrides, runs=runs / job.dataset)
        results.add(job, read_run(directory))

    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(run, *each) for each in enumerate(missing.values(), start=1)]:
            done.result()


def table(jobs: Sequence[Job], results: Results, pairs: PairSet, against: Sequence[Job]) -> str:
    """Markdown: a line for each cell, with its accuracy less that of the runs `against`."""
    resampler = Resampler(pairs.same, *pairs.identities())
    reference = [results.correct(job, len(pairs)) for job in against]
    lines = [
        f"| {pairs.name} | accuracy of each seed | mean | spread | less {against[0].cell} "
        "| images/s | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cell in dict.fromkeys(job.cell for job in jobs):
        rows = [job for job in jobs if job.cell == cell]
        correct = [results.correct(job, len(pairs)) for job in rows]
        found = difference(correct, reference, fold=pairs.fold, resampler=resampler)
        lines.append(row(cell, [results.runs[job.digest] for job in rows], found["of_the_means"]))
    return "\n".join(lines)


def row(cell: str, runs: Sequence[Mapping[str, Any]], less: Sequence[float]) -> str:
    """One line of a table."""
    accuracies = [run["verification_accuracy"] for run in runs]
    value, low, high = less
    columns = [
        cell,
        " ".join(f"{a:.3f}" for a in accuracies),
        f"{np.mean(accuracies):.3f}",
        f"{np.std(accuracies, ddof=1):.3f}",
        f"{value:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{np.mean([run['images_per_second'] for run in runs]):.0f}",
        f"{np.mean([run['total_seconds'] for run in runs]) / 60:.1f}",
    ]
    return f"| {' | '.join(columns)} |"


def print_tables(dataset: str, data: Path | None, results: Results) -> None:
    """Both tables of a set, of the cells that are finished in all seeds."""
    finished: list[list[Job]] = []
    for cells in cells_of(dataset):
        jobs = jobs_of(dataset, cells, data)
        lacking = {job.cell for job in jobs if job.digest not in results.runs}
        finished.append([job for job in jobs if job.cell not in lacking])
        if lacking:
            print(f"{dataset}: not finished: {', '.join(sorted(lacking))}")
    methods, ablations = finished
    for jobs, name in ((methods, BASELINE), (ablations, ABLATED)):
        against = [job for job in jobs if job.cell == name]
        if jobs and against:
            pairs = build_pairs(against[0].config, warn=print)
            if pairs is None:
                raise ValueError(f"the recipe of {dataset} has no pairs")
            print(f"\n{table(jobs, results, pairs, against)}")


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="lfw-112.tar; without it, synthetic faces only")
    parser.add_argument("--sets", nargs="+", choices=DATASETS, help="default: all there is data of")
    parser.add_argument("--runs", type=Path, default=Path("runs/f2c-study"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    options = parser.parse_args()
    sets = options.sets or (["synthetic"] if options.data is None else list(DATASETS))
    if "lfw" in sets and options.data is None:
        parser.error("the set lfw needs --data lfw-112.tar")
    results = Results(RESULTS / "f2c_study.json")
    if not options.tables:
        jobs = in_order(sets, options.data)
        run_all(jobs, results, runs=options.runs.resolve(), at_once=options.jobs)
    for name in sets:
        print_tables(name, options.data, results)


if __name__ == "__main__":
    main()

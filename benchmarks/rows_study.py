"""What bfloat16 rows and block sampling do to accuracy: three seeds each.

    python benchmarks/rows_study.py [--data lfw-112.tar] [--jobs 2] [--tables] [--doubt]

`--doubt` asks once more where three seeds left it open: Partial FC on LFW, in five other seeds.

Recipes, budgets and cells in common with benchmarks/f2c_study.py, whose finished runs count; its
own are kept in results/rows_study.json. Rows of 6,000 people are not shuffled, so blocks of 64
always draw the same neighbours together: harder than in tables of 16,384 and more.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from f2c_study import BASELINE, DATASETS, SEEDS, Cells, Job, Results, jobs_of, run_all, table
from provenance import RESULTS

from manyface.train.build import build_pairs

PARTIAL, SAMPLED = "Partial FC 0.1", ("head.sample_rate=0.1",)
HALF = ("head.dtype=bfloat16",)
DTYPES: Cells = {
    BASELINE: (),
    "full FC, bfloat16 rows": HALF,
    PARTIAL: SAMPLED,
    "Partial FC 0.1, bfloat16 rows": (*SAMPLED, *HALF),
}
BLOCKS: Cells = {
    "Partial FC 0.1, single rows": (*SAMPLED, "head.block=1"),
    "Partial FC 0.1, blocks of 64": (*SAMPLED, "head.block=64"),
}
DOUBT: Cells = {PARTIAL: DTYPES[PARTIAL], f"{PARTIAL}, bfloat16 rows": (*SAMPLED, *HALF)}
DOUBT_SEEDS = range(3, 8)
CELLS: dict[str, Cells] = {"synthetic": {**DTYPES, **BLOCKS}, "lfw": DTYPES}


def jobs_of_set(
    dataset: str, cells: Cells, data: Path | None, seeds: Sequence[int] = SEEDS
) -> list[Job]:
    """Its runs; a sampled one has the margin that the set gives to samples."""
    margin = DATASETS[dataset].more.get(PARTIAL, ())
    cells = {
        cell: (*changes, *(margin if SAMPLED[0] in changes else ()))
        for cell, changes in cells.items()
    }
    return jobs_of(dataset, cells, data, seeds)


def print_table(jobs: list[Job], results: Results, base: str = BASELINE) -> None:
    """Of the cells that are finished in all seeds, beside the cell `base`."""
    lacking = {job.cell for job in jobs if job.digest not in results.runs}
    done = [job for job in jobs if job.cell not in lacking]
    pairs = build_pairs(jobs[0].config, warn=print)
    if pairs is None:
        raise ValueError("the recipe has no pairs")
    print(f"\n{table(done, results, pairs, [job for job in done if job.cell == base])}")
    for cell in sorted(lacking):
        print(f"{jobs[0].dataset}: not finished: {cell}")


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="lfw-112.tar; without it, synthetic faces only")
    parser.add_argument("--runs", type=Path, default=Path("runs/rows-study"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--doubt", action="store_true", help="five more seeds of Partial FC on LFW")
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    options = parser.parse_args()
    results = Results(RESULTS / "rows_study.json")
    sets = ["synthetic"] if options.data is None else list(CELLS)
    jobs = {name: jobs_of_set(name, CELLS[name], options.data) for name in sets}
    if options.doubt:
        jobs = {PARTIAL: jobs_of_set("lfw", DOUBT, options.data, DOUBT_SEEDS)}
    everything = [job for each in jobs.values() for job in each]
    finished = Results(RESULTS / "f2c_study.json").runs
    results.runs |= {j.digest: finished[j.digest] for j in everything if j.digest in finished}
    if not options.tables:
        run_all(everything, results, runs=options.runs.resolve(), at_once=options.jobs)
    for each in jobs.values():
        print_table(each, results, PARTIAL if options.doubt else BASELINE)


if __name__ == "__main__":
    main()

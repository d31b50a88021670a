"""What bfloat16 rows and block sampling do to accuracy: three seeds each, on synthetic faces.

    python benchmarks/rows_study.py [--jobs 2] [--tables]

Recipe, budget and cells in common with benchmarks/f2c_study.py, whose finished runs count; its own
are kept in results/rows_study.json. Rows of 6,000 people are not shuffled, so blocks of 64 always
draw the same neighbours together: harder than in tables of 16,384 and more.
"""

import argparse
from pathlib import Path

from f2c_study import BASELINE, Cells, Results, jobs_of, run_all, table
from provenance import RESULTS

from manyface.train.build import build_pairs

SAMPLED = ("head.sample_rate=0.1",)
HALF = ("head.dtype=bfloat16",)
CELLS: Cells = {
    BASELINE: (),
    "full FC, bfloat16 rows": HALF,
    "Partial FC 0.1": SAMPLED,
    "Partial FC 0.1, bfloat16 rows": (*SAMPLED, *HALF),
    "Partial FC 0.1, single rows": (*SAMPLED, "head.block=1"),
    "Partial FC 0.1, blocks of 64": (*SAMPLED, "head.block=64"),
}


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/rows-study"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    options = parser.parse_args()
    results = Results(RESULTS / "rows_study.json")
    jobs = jobs_of("synthetic", CELLS, None)
    finished = Results(RESULTS / "f2c_study.json").runs
    results.runs |= {job.digest: finished[job.digest] for job in jobs if job.digest in finished}
    if not options.tables:
        run_all(jobs, results, runs=options.runs.resolve(), at_once=options.jobs)
    lacking = {job.cell for job in jobs if job.digest not in results.runs}
    done = [job for job in jobs if job.cell not in lacking]
    pairs = build_pairs(jobs[0].config, warn=print)
    if pairs is None:
        raise ValueError("the recipe has no pairs")
    print(table(done, results, pairs, [job for job in done if job.cell == BASELINE]))
    for cell in sorted(lacking):
        print(f"not finished: {cell}")


if __name__ == "__main__":
    main()

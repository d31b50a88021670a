"""Tables of finished runs: accuracy of each seed, and what a cell gains or loses on equal pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError
from manyface.evaluate.pairs import PairSet
from manyface.studies.cells import Cell, Scale, Table
from manyface.studies.differences import Difference, OnPairs, SeedNoise
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.ledger import Entry, Ledger
from manyface.train.build import build_pairs


@dataclass(frozen=True)
class Line:
    """A finished cell.

    Attributes:
        cell: which.
        less: its mean accuracy less that of the baseline, over the seeds that both have; None for
            the baseline itself.
        runs: what they have shown.
    """

    cell: Cell
    less: Difference | None
    runs: list[Entry]

    @property
    def accuracies(self) -> list[float]:
        """Of each seed."""
        return _accuracies(self.runs)

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval of `less`, laid around the mean; None of the baseline."""
        if self.less is None:
            return None
        less, mean = self.less, self.mean
        low, high = (mean + (end - less.value) / 100 for end in (less.low, less.high))
        return low, min(1.0, high)


def judge(
    table: Table,
    scale: Scale,
    ledger: Ledger,
    *,
    beside: Sequence[Table] = (),
    data: Path | None = None,
) -> list[Line]:
    """The cells that are finished in a seed or more, in order. Where each has one seed, `beside`
    are tables whose runs of the same recipe tell how far seeds scatter."""
    of_cell = _done(table, scale, ledger, data)
    against = next(found for cell, found in of_cell.items() if cell.name == table.baseline)
    on_pairs = OnPairs.of(_pairs(against[0])) if against else None
    noise = _noise([of_cell], ledger) or _noise(
        [_done(each, scale, ledger, data) for each in beside if each.recipe == table.recipe], ledger
    )
    return [
        Line(cell, _less(found, against, ledger, on_pairs, noise), ledger.of(found))
        for cell, found in of_cell.items()
        if found
    ]


def _done(table: Table, scale: Scale, ledger: Ledger, data: Path | None) -> dict[Cell, list[Job]]:
    jobs = [*jobs_of(table, scale, data=data), *again(table, scale, ledger, data=data)]
    done = [job for job in jobs if ledger.has(job)]
    return {cell: [job for job in done if job.cell.name == cell.name] for cell in table.cells}


def _noise(tables: Sequence[dict[Cell, list[Job]]], ledger: Ledger) -> SeedNoise | None:
    """None if no cell has two seeds."""
    cells = [found for of_cell in tables for found in of_cell.values()]
    once = {tuple(job.digest for job in found): found for found in cells}  # tables share cells
    return SeedNoise.of([_accuracies(ledger.of(found)) for found in once.values()])


def _accuracies(runs: Sequence[Entry]) -> list[float]:
    return [run["verification_accuracy"] for run in runs]


def again(table: Table, scale: Scale, ledger: Ledger, *, data: Path | None = None) -> list[Job]:
    """Further seeds of the best cells, once the first seed of all is known; of the baseline too."""
    first = jobs_of(table, scale, data=data)
    if not table.best_again or not all(ledger.has(job) for job in first):
        return []
    ranked = sorted(first, key=lambda job: -ledger.runs[job.digest]["verification_accuracy"])
    chosen = dict.fromkeys(job.cell.name for job in ranked[: table.best_again])
    chosen[table.baseline] = None
    cells = tuple(Cell(cell.name, cell.changes) for cell in table.cells if cell.name in chosen)
    more = Table(table.title, table.baseline, cells, table.recipe)
    return [job for job in jobs_of(more, scale, data=data) if job.seed > 0]


def _pairs(job: Job) -> PairSet:
    pairs = build_pairs(job.config, warn=lambda text: None)
    if pairs is None:
        raise DataError(f"the recipe of {job.cell.name} has no pairs to be judged on")
    return pairs


def _less(
    jobs: Sequence[Job],
    against: Sequence[Job],
    ledger: Ledger,
    on_pairs: OnPairs | None,
    noise: SeedNoise | None,
) -> Difference | None:
    """The difference over the seeds that both have; None of the baseline, or without one."""
    both = {job.seed for job in jobs} & {job.seed for job in against}
    if on_pairs is None or not both or jobs is against:
        return None
    ours, theirs = (
        [ledger.correct(job) for job in each if job.seed in both] for each in (jobs, against)
    )
    found = on_pairs.difference(ours, theirs)
    return found if noise is None else found.widened(noise.reach(len(both)))

"""Tables of finished runs: accuracy of each seed, and what a cell gains or loses on equal pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from manyface.base.errors import DataError
from manyface.evaluate.pairs import PairSet
from manyface.studies.cells import Cell, Scale, Table
from manyface.studies.differences import Difference, OnPairs, SeedNoise
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.ledger import Entry, Ledger
from manyface.train.build_pairs import build_pairs


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
        return [accuracy_of(run) for run in self.runs]

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
    done = _Done.of(table, scale, ledger, data)
    on_pairs = OnPairs.of(_pairs(done.baseline[0])) if done.baseline else None
    noise = _noise([done]) or _noise(
        [_Done.of(each, scale, ledger, data) for each in beside if each.recipe == table.recipe]
    )
    return [
        Line(cell, done.less(found, on_pairs, noise), ledger.of(found))
        for cell, found in done.of_cell.items()
        if found
    ]


@dataclass(frozen=True)
class _Done:
    """The finished runs of a table: of each cell, and of its baseline."""

    ledger: Ledger
    of_cell: dict[Cell, list[Job]]
    baseline: list[Job]

    @classmethod
    def of(cls, table: Table, scale: Scale, ledger: Ledger, data: Path | None) -> Self:
        jobs = [*jobs_of(table, scale, data=data), *again(table, scale, ledger, data=data)]
        done = [job for job in jobs if ledger.has(job)]
        of_cell = {
            cell: [job for job in done if job.cell.name == cell.name] for cell in table.cells
        }
        against = next(found for cell, found in of_cell.items() if cell.name == table.baseline)
        return cls(ledger, of_cell, against)

    def by_seed(self, jobs: Sequence[Job]) -> list[float]:
        """Points of accuracy less those of the baseline, at each seed that both have."""
        theirs = self._accuracies(self.baseline)
        ours = self._accuracies(jobs)
        return [100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]

    def _accuracies(self, jobs: Sequence[Job]) -> dict[int, float]:
        """Seed -> accuracy."""
        return {job.seed: accuracy_of(self.ledger.runs[job.digest]) for job in jobs}

    def less(
        self, jobs: Sequence[Job], on_pairs: OnPairs | None, noise: SeedNoise | None
    ) -> Difference | None:
        """The difference over the seeds that both have; None of the baseline, or without one."""
        both = {job.seed for job in jobs} & {job.seed for job in self.baseline}
        if on_pairs is None or not both or jobs is self.baseline:
            return None
        ours, theirs = (
            [self.ledger.correct(job) for job in each if job.seed in both]
            for each in (jobs, self.baseline)
        )
        found = on_pairs.difference(ours, theirs)
        return found if noise is None else found.widened(noise.reach(self.by_seed(jobs)))

    def differences(self) -> dict[tuple[str, ...], list[float]]:
        """Of all cells but the baseline, by the runs that they are of."""
        return {
            tuple(job.digest for job in (*found, *self.baseline)): self.by_seed(found)
            for found in self.of_cell.values()
            if found is not self.baseline
        }


def _noise(tables: Sequence[_Done]) -> SeedNoise | None:
    """None if no cell has two seeds in common with its baseline. Tables share cells."""
    by_runs = {runs: found for done in tables for runs, found in done.differences().items()}
    return SeedNoise.of(list(by_runs.values()))


def accuracy_of(run: Entry) -> float:
    """Of verification, a share of the pairs."""
    return float(run["verification_accuracy"])


def again(table: Table, scale: Scale, ledger: Ledger, *, data: Path | None = None) -> list[Job]:
    """Further seeds of the best cells, once the first seed of all is known; of the baseline too."""
    first = jobs_of(table, scale, data=data)
    if not table.best_again or not all(ledger.has(job) for job in first):
        return []
    ranked = sorted(first, key=lambda job: -accuracy_of(ledger.runs[job.digest]))
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

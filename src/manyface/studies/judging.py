"""Tables of finished runs: accuracy of each seed, and what a cell gains or loses on equal pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.evaluate import Resampler, accuracy_difference
from manyface.evaluate.pairs import PairSet
from manyface.studies.cells import Cell, Scale, Table
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.ledger import Correct, Entry, Ledger
from manyface.train.build import build_pairs


@dataclass(frozen=True)
class Difference:
    """Points of accuracy, with the 95 % interval of the mean over seeds, people resampled."""

    value: float
    low: float
    high: float


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
        return [run["verification_accuracy"] for run in self.runs]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None of one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class _Compared:
    """The folds of a table's pairs, and their people drawn again: the same for all its lines."""

    fold: npt.NDArray[np.int64]
    resampler: Resampler

    @classmethod
    def on(cls, pairs: PairSet) -> Self:
        return cls(pairs.fold, Resampler(pairs.same, *pairs.identities()))

    def difference(self, first: Sequence[Correct], second: Sequence[Correct]) -> Difference:
        """Accuracy of `first` less `second`, of the means over seeds; a pair counts with the share
        of the seeds that decide it rightly. The interval does not hold the spread over seeds."""
        shares = [np.mean(group, axis=0) for group in (first, second)]
        found = accuracy_difference(shares[0], shares[1], self.fold, self.resampler)
        return Difference(*(100 * value for value in (found.value, found.low, found.high)))


def judge(table: Table, scale: Scale, ledger: Ledger, *, data: Path | None = None) -> list[Line]:
    """The cells that are finished in a seed or more, in order."""
    jobs = [*jobs_of(table, scale, data=data), *again(table, scale, ledger, data=data)]
    done = [job for job in jobs if ledger.has(job)]
    of_cell = {cell: [job for job in done if job.cell.name == cell.name] for cell in table.cells}
    against = next(found for cell, found in of_cell.items() if cell.name == table.baseline)
    compared = _Compared.on(_pairs(against[0])) if against else None
    return [
        Line(cell, _less(found, against, ledger, compared), ledger.of(found))
        for cell, found in of_cell.items()
        if found
    ]


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
    jobs: Sequence[Job], against: Sequence[Job], ledger: Ledger, compared: _Compared | None
) -> Difference | None:
    """The difference over the seeds that both have; None of the baseline, or without one."""
    both = {job.seed for job in jobs} & {job.seed for job in against}
    if compared is None or not both or jobs is against:
        return None
    ours, theirs = (
        [ledger.correct(job) for job in each if job.seed in both] for each in (jobs, against)
    )
    return compared.difference(ours, theirs)

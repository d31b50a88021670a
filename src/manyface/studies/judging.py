"""Tables of finished runs: accuracy of each seed, and what a cell gains or loses on equal pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from manyface.base.errors import DataError
from manyface.evaluate.pairs import PairSet
from manyface.studies.cells import Cell, Scale, Table
from manyface.studies.differences import Difference, Gain, OnPairs, SeedNoise
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.ledger import Entry, Ledger
from manyface.train.build_pairs import build_pairs

Gains = dict[int, Gain]  # of a cell over another, at each seed


@dataclass(frozen=True)
class Line:
    """A finished cell.

    Attributes:
        cell: which.
        less: its mean accuracy less that of the baseline, over the seeds that both have; None for
            the baseline itself.
        runs: what they have shown.
        withstands: what wrong labels cost the baseline less what they cost the cell: above 0 where
            they harm the cell less. None where the table has no wrong labels.
    """

    cell: Cell
    less: Difference | None
    runs: list[Entry]
    withstands: Difference | None = None

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
    """The cells that are finished in a seed or more, in order. Where each has one seed, `beside`,
    the tables of the study, are asked how far seeds scatter: those of the same recipe."""
    done = _Done.of(table, scale, ledger, data)
    if not done.baseline:
        return [Line(cell, None, ledger.of(found)) for cell, found in done.of_cell.items() if found]
    on_pairs = OnPairs.of(_pairs(done.baseline[0]))
    noise = _noise([done], on_pairs) or _noise(
        [_Done.of(each, scale, ledger, data) for each in beside if each.recipe == table.recipe],
        on_pairs,
    )
    less = _differences(done.gains, on_pairs, noise)
    clean = [each for each in beside if each.title == table.clean]
    withstands = _withstands(
        done, [_Done.of(each, scale, ledger, data) for each in clean], on_pairs
    )
    return [
        Line(cell, less.get(cell.name), ledger.of(found), withstands.get(cell.name))
        for cell, found in done.of_cell.items()
        if found
    ]


@dataclass(frozen=True)
class _Done:
    """The finished runs of a table, by cell."""

    table: Table
    ledger: Ledger
    of_cell: dict[Cell, list[Job]]

    @classmethod
    def of(cls, table: Table, scale: Scale, ledger: Ledger, data: Path | None) -> Self:
        jobs = [*jobs_of(table, scale, data=data), *again(table, scale, ledger, data=data)]
        done = [job for job in jobs if ledger.has(job)]
        of_cell = {
            cell: [job for job in done if job.cell.name == cell.name] for cell in table.cells
        }
        return cls(table, ledger, of_cell)

    @property
    def baseline(self) -> list[Job]:
        """Finished runs of the baseline."""
        is_it = (jobs for cell, jobs in self.of_cell.items() if cell.name == self.table.baseline)
        return next(is_it)

    @cached_property
    def gains(self) -> dict[str, Gains]:
        """Name of a cell -> its gains over the baseline, at the seeds that both have."""
        theirs = self._correct(self.baseline)
        return {
            cell.name: _minus(self._correct(jobs), theirs)
            for cell, jobs in self.of_cell.items()
            if jobs is not self.baseline
        }

    def _correct(self, jobs: Sequence[Job]) -> Gains:
        return {job.seed: self.ledger.correct(job).astype(np.float64) for job in jobs}

    def by_runs(self) -> dict[tuple[str, ...], Gains]:
        """`gains` by the digests of the runs that they are of: tables share cells."""
        return {
            tuple(job.digest for job in (*jobs, *self.baseline)): self.gains[cell.name]
            for cell, jobs in self.of_cell.items()
            if cell.name in self.gains
        }


def _minus(first: Gains, second: Gains) -> Gains:
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def _withstands(done: _Done, clean: Sequence[_Done], on_pairs: OnPairs) -> dict[str, Difference]:
    """Name of a cell -> what it gains on the baseline by wrong labels; `clean` has the table
    without them, if there is one. Of single seeds nothing: how far they scatter is not known."""
    if not clean:
        return {}
    without = clean[0].gains
    gains = {name: _minus(found, without.get(name, {})) for name, found in done.gains.items()}
    noise = _scatter(gains.values(), on_pairs)
    return {} if noise is None else _differences(gains, on_pairs, noise)


def _differences(
    gains: Mapping[str, Gains], on_pairs: OnPairs, noise: SeedNoise | None
) -> dict[str, Difference]:
    """The means over seeds, of what has any."""
    return {name: _difference(found, on_pairs, noise) for name, found in gains.items() if found}


def _difference(gains: Gains, on_pairs: OnPairs, noise: SeedNoise | None) -> Difference:
    found = on_pairs.difference(list(gains.values()))
    return found if noise is None else found.widened(noise.reach(_points(gains, on_pairs)))


def _points(gains: Gains, on_pairs: OnPairs) -> list[float]:
    return [on_pairs.points(each) for each in gains.values()]


def _scatter(gains: Iterable[Gains], on_pairs: OnPairs) -> SeedNoise | None:
    """None if nothing has two seeds."""
    return SeedNoise.of(_points(each, on_pairs) for each in gains)


def _noise(tables: Sequence[_Done], on_pairs: OnPairs) -> SeedNoise | None:
    by_runs = {runs: found for done in tables for runs, found in done.by_runs().items()}
    return _scatter(by_runs.values(), on_pairs)


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

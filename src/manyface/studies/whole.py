"""Studies from end to end: train what is missing, measure what is missing, write what there is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manyface.base.errors import ConfigError
from manyface.base.threads import usable_cores
from manyface.checkpoint import run_lock
from manyface.studies.catalog import studies_of
from manyface.studies.cells import Scale, Study
from manyface.studies.claims_page import write_claims
from manyface.studies.cost import Costs, measure
from manyface.studies.cost_page import write_costs
from manyface.studies.jobs import Job, jobs_of_study, tables_here
from manyface.studies.judging import again, judge
from manyface.studies.ledger import Ledger
from manyface.studies.page import write_study
from manyface.studies.running import Told, missing, run_all
from manyface.studies.scales import find_scale
from manyface.studies.summary import write_summary
from manyface.studies.tables import Judged

ALL, COST = "all", "cost"


@dataclass(frozen=True)
class Folder:
    """Where a scale's runs, results and pages lie, and what there is to train on.

    Attributes:
        path: of the scale.
        scale: how large the runs are.
        data: photos on disk, or None.
    """

    path: Path
    scale: Scale
    data: Path | None

    def ledger(self) -> Ledger:
        """What runs have shown so far."""
        return Ledger(self.path / "results.json")

    def costs(self) -> Costs:
        """What steps have cost so far."""
        return Costs.read(self.path / "costs.json")


def chosen_studies(names: Sequence[str], scale: Scale) -> list[Study]:
    """Those that are trained, of "all" or of names; ConfigError for an unknown one."""
    found = studies_of(scale)
    if unknown := [name for name in names if name not in (ALL, COST, *found)]:
        raise ConfigError(
            f"no study {unknown[0]!r} at the scale {scale.name}; there are: "
            f"{', '.join((ALL, *found, COST))}"
        )
    wanted = found if ALL in names else dict.fromkeys(names)
    return [found[name] for name in wanted if name != COST]


def has_cost(names: Sequence[str]) -> bool:
    """Whether the study of costs is among these."""
    return ALL in names or COST in names


def train_missing(
    studies: Sequence[Study],
    folder: Folder,
    *,
    at_once: int,
    begins: Callable[[int], None],
    told: Told,
) -> None:
    """Train all that the ledger lacks; then, of tables that ask for it, more seeds of the best.

    Args:
        at_once: runs at a time.
        begins: is told how many there are, before the first.
        told: is told of each that is finished.

    Raises:
        CheckpointError: another process trains or measures in the folder, whose results would go.
    """
    with run_lock(folder.path):
        ledger, runs = folder.ledger(), (folder.path / "runs").resolve()
        for find in (_first_jobs, _further_jobs):
            wanted = [job for study in studies for job in find(study, folder, ledger)]
            if todo := missing(wanted, ledger):
                begins(len(todo))
                run_all(todo, ledger, runs=runs, at_once=at_once, told=told)


def _first_jobs(study: Study, folder: Folder, ledger: Ledger) -> Iterator[Job]:
    return jobs_of_study(study, folder.scale, data=folder.data)


def _further_jobs(study: Study, folder: Folder, ledger: Ledger) -> Iterator[Job]:
    for table in tables_here(study, folder.scale, data=folder.data):
        yield from again(table, folder.scale, ledger, data=folder.data)


def measure_missing(
    folder: Folder, *, checkout: Path | None, report: Callable[[str], None]
) -> None:
    """Measure the costs that are not known yet; CheckpointError as `train_missing`."""
    with run_lock(folder.path):
        measure(
            folder.costs(),
            folder.scale.classes,
            threads=usable_cores(),
            checkout=checkout,
            report=report,
        )


def write_pages(studies: Sequence[Study], folder: Folder, *, with_cost: bool) -> list[Path]:
    """The pages of all that has something finished; claims.md and summary.svg beside them, of
    what is finished in all studies, asked for now or not."""
    ledger, costs, pages, every = folder.ledger(), folder.costs(), [], []
    asked = {study.name for study in studies}
    for study in studies_of(folder.scale).values():
        judged = _judged(study, folder, ledger)
        every += judged
        if judged and study.name in asked:
            command = _command(study.name, folder)
            pages.append(write_study(study, judged, folder.path, command=command))
    if with_cost and costs.figures:
        command = _command(COST, folder)
        pages.append(write_costs(costs, folder.scale.classes, folder.path, command=command))
    if pages:
        thought = folder.scale.name == "small"
        pages.append(write_claims(every, costs, folder.path, thought=thought))
        write_summary(every, costs, folder.scale.classes, folder.path)
    return pages


def _command(name: str, folder: Folder) -> str:
    scale = folder.scale
    words = ["manyface reproduce", name, "--scale", scale.name]
    if folder.data is not None and name != COST:
        words += ["--data", folder.data.name]
    if scale.seeds != find_scale(scale.name).seeds:
        words += ["--seeds", str(scale.seeds)]
    return " ".join(words)


def _judged(study: Study, folder: Folder, ledger: Ledger) -> list[Judged]:
    tables = tables_here(study, folder.scale, data=folder.data)
    found = [
        Judged(each, judge(each, folder.scale, ledger, beside=tables, data=folder.data))
        for each in tables
    ]
    return [each for each in found if each.lines]

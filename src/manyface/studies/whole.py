"""Studies from end to end: train what is missing, measure what is missing, write what there is."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from manyface.base.errors import ConfigError
from manyface.base.threads import usable_cores
from manyface.checkpoint import run_lock
from manyface.studies import DIRECTORY
from manyface.studies.catalog import studies_of
from manyface.studies.cells import Scale, Study, Table
from manyface.studies.claims_page import write_claims
from manyface.studies.cost import Costs, check_checkout, measure
from manyface.studies.cost_page import write_costs
from manyface.studies.jobs import Job, jobs_of, jobs_of_study, tables_here
from manyface.studies.judging import again, judge
from manyface.studies.ledger import Ledger
from manyface.studies.page import Shown, write_study
from manyface.studies.photos import PhotosOf, has_photos, look_at
from manyface.studies.running import IN_USE, Told, missing, names_of, run_all
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
        checkout: folder of insightface's code; without it, the cost of its head is left out.
        photos: those of `data`, once they have been looked at.
    """

    path: Path
    scale: Scale
    data: Path | None
    checkout: Path | None = None
    photos: PhotosOf = field(default_factory=dict)

    def ledger(self) -> Ledger:
        """What runs have shown so far."""
        return Ledger(self.path / "results.json", photos=self.photos)

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


def looked_at(studies: Sequence[Study], folder: Folder) -> Folder:
    """The folder with the photos of all tables that are trained or judged (of none: all that are
    there), once all that could end the studies later has been read.

    Raises:
        ConfigError: there can be no such folder, or no such checkout.
        DataError: photos, results or costs cannot be used.
    """
    _check_place(folder.path / "runs")
    if folder.checkout is not None:
        check_checkout(folder.checkout)
    ledger, _ = folder.ledger(), folder.costs()
    asked, every = {study.name for study in studies}, list(_tables_of_photos(folder))
    tables = [
        table for study, table in every if study.name in asked or _has_begun(table, folder, ledger)
    ]
    photos = look_at(tables or [table for _, table in every], folder.scale, folder.data)
    found = replace(folder, photos=photos)
    found.ledger()
    return found


def _tables_of_photos(folder: Folder) -> Iterator[tuple[Study, Table]]:
    for study in studies_of(folder.scale).values():
        for table in tables_here(study, folder.scale, data=folder.data):
            if table.recipe in folder.scale.photos:
                yield study, table


def _has_begun(table: Table, folder: Folder, ledger: Ledger) -> bool:
    jobs = jobs_of(table, folder.scale, data=folder.data)
    return any(job.digest in ledger.runs for job in jobs)


def _check_place(path: Path) -> None:
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(f"-d: {place} is no folder; take another name, or move it away")


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
    with run_lock(folder.path, instead=IN_USE):
        ledger, runs = folder.ledger(), (folder.path / "runs").resolve()
        every = studies_of(folder.scale).values()
        for find in (_first_jobs, _further_jobs):
            wanted = [job for study in studies for job in find(study, folder, ledger)]
            others = (job for study in every for job in _jobs(study, folder, ledger))
            if todo := missing(wanted, ledger, others=others):
                names = names_of(todo, _titles(studies, folder, ledger))
                begins(len(todo))
                run_all(todo, ledger, runs=runs, at_once=at_once, names=names, told=told)


def _titles(studies: Sequence[Study], folder: Folder, ledger: Ledger) -> dict[str, str]:
    """Digest -> title of the first table that has its run."""
    found: dict[str, str] = {}
    for study in studies:
        for table in tables_here(study, folder.scale, data=folder.data):
            first = jobs_of(table, folder.scale, data=folder.data)
            for job in (*first, *again(table, folder.scale, ledger, data=folder.data)):
                found.setdefault(job.digest, table.title)
    return found


def _jobs(study: Study, folder: Folder, ledger: Ledger) -> Iterator[Job]:
    """All that are known to be its runs by now."""
    yield from _first_jobs(study, folder, ledger)
    yield from _further_jobs(study, folder, ledger)


def _first_jobs(study: Study, folder: Folder, ledger: Ledger) -> Iterator[Job]:
    return jobs_of_study(study, folder.scale, data=folder.data)


def _further_jobs(study: Study, folder: Folder, ledger: Ledger) -> Iterator[Job]:
    for table in tables_here(study, folder.scale, data=folder.data):
        yield from again(table, folder.scale, ledger, data=folder.data)


def measure_missing(folder: Folder, *, report: Callable[[str], None]) -> None:
    """Measure the costs that are not known yet; CheckpointError as `train_missing`."""
    with run_lock(folder.path, instead=IN_USE):
        measure(
            folder.costs(),
            folder.scale.classes,
            threads=usable_cores(),
            checkout=folder.checkout,
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
            data = folder.data if has_photos(study, folder.scale) else None
            command = _command(study.name, folder, data=data)
            left = len(missing(list(_jobs(study, folder, ledger)), ledger))
            shown = Shown(study, judged, folder.scale, command, missing=left)
            pages.append(write_study(shown, folder.path))
    if with_cost and costs.figures:
        command = _command(COST, folder, checkout=folder.checkout or costs.checkout)
        pages.append(write_costs(costs, folder.scale.classes, folder.path, command=command))
    if pages:
        pages.append(write_claims(every, costs, folder.path, scale=folder.scale.name))
        write_summary(every, costs, folder.scale.classes, folder.path)
    return pages


def _command(name: str, folder: Folder, **paths: Path | None) -> str:
    """As it is typed. Pages may be published: of absolute paths they show the last part."""
    scale = folder.scale
    words = ["manyface", "reproduce", name, "--scale", scale.name]
    if scale.seeds != find_scale(scale.name).seeds:
        words += ["--seeds", str(scale.seeds)]
    if folder.path.parent != DIRECTORY:
        paths["directory"] = folder.path.parent
    for option, path in paths.items():
        if path is not None:
            words += [f"--{option}", path.name if path.is_absolute() else str(path)]
    return shlex.join(words)


def _judged(study: Study, folder: Folder, ledger: Ledger) -> list[Judged]:
    tables = tables_here(study, folder.scale, data=folder.data)
    found = [
        Judged(each, judge(each, folder.scale, ledger, beside=tables, data=folder.data))
        for each in tables
    ]
    return [each for each in found if each.lines]

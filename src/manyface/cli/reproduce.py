"""`manyface reproduce`: the papers' claims held to the test, one study or all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.observe.progress import format_duration

if TYPE_CHECKING:
    from manyface.studies.cells import Scale, Study
    from manyface.studies.ledger import Ledger

COST = "cost"
NAMES = ("rate", "identities", "pool", "conflict", "flip", "tail", "margins", "backbones", COST)


def reproduce(
    names: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help=f"all, or of: {', '.join(NAMES)}.")
    ],
    scale: Annotated[
        str, typer.Option(help="tiny: does it work; small: hours on two cores; paper: GPUs.")
    ] = "small",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of a cell; left out, the scale's.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="lfw-112.tar, for the tables of real photos.")
    ] = None,
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where runs, results and pages go.")
    ] = Path("runs/reproduce"),
    jobs: Annotated[
        int, typer.Option(min=0, help="Runs at a time; 0: one for each core, or one on all GPUs.")
    ] = 0,
    checkout: Annotated[
        Path | None, typer.Option(help="insightface's code, for the cost of its head.")
    ] = None,
    only_pages: Annotated[
        bool, typer.Option("--only-pages", help="Train nothing; write what there is.")
    ] = False,
) -> None:
    """Run studies of many trainings and write a table, pictures and a page for each.

    Whatever is finished is kept, and cells that studies share are trained once: after Ctrl-C the
    same command goes on. Without --data the tables of real photos are left out.

    \b
    Examples:
      manyface reproduce rate --scale tiny
      manyface reproduce all --data lfw-112.tar
    """
    from dataclasses import replace

    from manyface.studies.ledger import Ledger
    from manyface.studies.scales import find_scale

    chosen = find_scale(scale)
    if seeds is not None:
        chosen = replace(chosen, seeds=seeds)
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: there is no such file or folder")
    folder = directory / chosen.name
    ledger = Ledger(folder / "results.json")
    studies = _studies(names, chosen)
    if COST in names or "all" in names:
        _cost(chosen, folder, checkout, measures=not only_pages)
    if not only_pages:
        for turn in (False, True):  # further seeds of the best are known once the first are
            _train(studies, chosen, ledger, data, folder / "runs", jobs=jobs, again=turn)
    for study in studies:
        command = f"manyface reproduce {study.name} --scale {chosen.name}"
        _write(study, chosen, ledger, data, folder, command=command)


def _studies(names: Sequence[str], scale: "Scale") -> "list[Study]":
    from manyface.studies.catalog import studies_of

    found = studies_of(scale)
    if unknown := [name for name in names if name not in ("all", COST, *found)]:
        raise ConfigError(
            f"no study {unknown[0]!r} at the scale {scale.name}; there are: all, "
            f"{', '.join((*found, COST))}"
        )
    chosen = found if "all" in names else dict.fromkeys(names)
    return [found[name] for name in chosen if name != COST]


def _cost(scale: "Scale", folder: Path, checkout: Path | None, *, measures: bool) -> None:
    from manyface.base.threads import usable_cores
    from manyface.studies.cost import Costs, measure
    from manyface.studies.cost_page import write_costs

    costs = Costs.read(folder / "costs.json")
    if measures:
        threads = usable_cores()
        measure(costs, scale.classes, threads=threads, checkout=checkout, report=typer.echo)
    if not costs.figures:
        typer.echo(f"{COST}: nothing is measured yet")
        return
    command = f"manyface reproduce {COST} --scale {scale.name}"
    page = write_costs(costs, scale.classes, folder, command=command)
    typer.echo(f"{COST}: {page}")


def _train(
    studies: "Sequence[Study]",
    scale: "Scale",
    ledger: "Ledger",
    data: Path | None,
    runs: Path,
    *,
    jobs: int,
    again: bool,
) -> None:
    from manyface.studies import judging
    from manyface.studies.jobs import Job, jobs_of_study, tables_here
    from manyface.studies.running import Clock, missing, run_all, runs_at_once

    wanted: list[Job] = []
    for study in studies:
        if again:
            for table in tables_here(study, scale, data=data):
                wanted += judging.again(table, scale, ledger, data=data)
        else:
            wanted += jobs_of_study(study, scale, data=data)
    todo, clock = missing(wanted, ledger), Clock()
    if todo:
        typer.echo(f"{len(todo)} runs to train; Ctrl-C stops, the same command goes on")

    def told(done: int, total: int, job: Job, accuracy: float) -> None:
        left = format_duration(clock.left(done, total))
        what = f"{job.cell.name}, seed {job.seed}: {accuracy:.3f}"
        typer.echo(f"[{done} of {total}] {what}" + (f"; about {left} left" if done < total else ""))

    run_all(todo, ledger, runs=runs.resolve(), at_once=jobs or runs_at_once(), told=told)


def _write(
    study: "Study",
    scale: "Scale",
    ledger: "Ledger",
    data: Path | None,
    folder: Path,
    *,
    command: str,
) -> None:
    from manyface.studies.jobs import tables_here
    from manyface.studies.judging import judge
    from manyface.studies.page import Judged, write_study

    found = [
        Judged(table, judge(table, scale, ledger, data=data))
        for table in tables_here(study, scale, data=data)
    ]
    found = [each for each in found if each.lines]
    if not found:
        typer.echo(f"{study.name}: nothing is finished yet")
        return
    typer.echo(f"{study.name}: {write_study(study, found, folder, command=command)}")

"""`manyface reproduce`: the papers' claims held to the test, one study or all."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError

if TYPE_CHECKING:
    from manyface.studies.jobs import Job

NAMES = (
    *("rate", "identities", "pool", "conflict", "flip", "tail", "margins", "backbones"),
    "cost",
)


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
        Path | None,
        typer.Option(help="lfw-112.tar for tables of real photos; at paper, folder of its sets."),
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

    from manyface.studies.jobs import tables_here
    from manyface.studies.running import runs_at_once
    from manyface.studies.scales import find_scale
    from manyface.studies.whole import (
        Folder,
        chosen_studies,
        has_cost,
        measure_missing,
        train_missing,
        write_pages,
    )

    chosen = find_scale(scale)
    if seeds is not None:
        chosen = replace(chosen, seeds=seeds)
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: there is no such file or folder")
    folder = Folder(directory / chosen.name, chosen, data)
    studies, with_cost = chosen_studies(names, chosen), has_cost(names)
    if studies and not any(tables_here(study, chosen, data=data) for study in studies):
        raise ConfigError(
            f"the scale {scale} trains on photos; give --data, the folder of its sets"
        )
    if with_cost and not only_pages:
        measure_missing(folder, checkout=checkout, report=typer.echo)
    if not only_pages:
        signal.signal(signal.SIGTERM, _end)
        at_once = jobs or runs_at_once()
        train_missing(studies, folder, at_once=at_once, begins=_begins, told=_Told())
    pages = write_pages(studies, folder, with_cost=with_cost)
    for page in pages:
        typer.echo(str(page))
    if not pages:
        typer.echo("nothing is finished yet, so there is no page")


def _end(number: int, frame: object) -> None:
    """On SIGTERM as on Ctrl-C: the runs under way save, and this ends."""
    raise SystemExit(128 + number)


def _begins(count: int) -> None:
    typer.echo(f"{count} runs to train; Ctrl-C stops, the same command goes on")


class _Told:
    """Says a line for each finished run, with the time left."""

    def __init__(self) -> None:
        from manyface.studies.running import Clock

        self._clock = Clock()

    def __call__(self, done: int, total: int, job: "Job", accuracy: float) -> None:
        from manyface.observe.progress import format_duration

        left = format_duration(self._clock.left(done, total))
        what = f"{job.cell.name}, seed {job.seed}: {accuracy:.3f}"
        typer.echo(f"[{done} of {total}] {what}" + (f"; about {left} left" if done < total else ""))

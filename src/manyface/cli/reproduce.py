"""`manyface reproduce`: the papers' claims held to the test, one study or all."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError, DataError, ManyfaceError
from manyface.studies import DIRECTORY

if TYPE_CHECKING:
    from manyface.studies.cells import Scale, Study
    from manyface.studies.running import Finished
    from manyface.studies.whole import Folder

NAMES = (
    *("rate", "identities", "pool", "conflict", "flip", "tail", "margins", "backbones"),
    "cost",
)
MOST_SEEDS = 100


def reproduce(
    names: Annotated[
        list[str], typer.Argument(metavar="STUDY...", help=f"all, or of: {', '.join(NAMES)}.")
    ],
    scale: Annotated[
        str, typer.Option(help="tiny: does it work; small: hours on two cores; paper: GPUs.")
    ] = "small",
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_SEEDS,
            help="Seeds of a cell; those of learning rates, numbers of people, a first round of "
            "margins keep their own number. Left out, the scale's.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="lfw-112.tar for tables of real photos; at paper, folder of its sets."),
    ] = None,
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where runs, results and pages go.")
    ] = DIRECTORY,
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
    from manyface.studies.photos import check_data
    from manyface.studies.whole import Folder, chosen_studies, has_cost

    chosen = _scale(scale, seeds)
    studies, with_cost = chosen_studies(names, chosen), has_cost(names)
    if checkout is not None and not with_cost:
        raise ConfigError("--checkout is for the study `cost`, which was not asked for")
    if said := check_data(studies, chosen, data):
        typer.echo(said)
    folder = Folder(directory / chosen.name, chosen, data, checkout)
    with _stopping():
        _reproduce(studies, folder, with_cost=with_cost, jobs=jobs, only_pages=only_pages)


def _scale(name: str, seeds: int | None) -> "Scale":
    from dataclasses import replace

    from manyface.studies.scales import find_scale

    found = find_scale(name)
    return found if seeds is None else replace(found, seeds=seeds)


def _reproduce(
    studies: "list[Study]", folder: "Folder", *, with_cost: bool, jobs: int, only_pages: bool
) -> None:
    from manyface.studies.running import runs_at_once
    from manyface.studies.whole import looked_at, measure_missing, train_missing, write_pages

    folder = looked_at(studies, folder)
    if with_cost and not only_pages:
        measure_missing(folder, report=typer.echo)
    if not only_pages:
        train_missing(studies, folder, at_once=jobs or runs_at_once(), begins=_begins, told=_told)
    pages = write_pages(studies, folder, with_cost=with_cost)
    for page in pages:
        typer.echo(str(page))
    if not pages:
        raise DataError(
            f"nothing is finished in {folder.path}, so there is no page; name the folder of "
            "results with -d, or leave --only-pages out"
        )


class Stopped(ManyfaceError):
    """Ended by a signal; `exit_code` is 128 + signal, as shells have it."""

    def __init__(self, received: signal.Signals) -> None:
        self.exit_code = 128 + received
        how = "Ctrl-C" if received == signal.SIGINT else received.name
        super().__init__(f"stopped by {how}: what is finished is kept, the same command goes on")


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM and a closed terminal are as Ctrl-C: runs under way save, and this ends."""
    received = [signal.SIGINT]

    def stop(number: int, frame: FrameType | None) -> None:
        received[0] = signal.Signals(number)
        raise KeyboardInterrupt

    heard = [signal.SIGTERM, signal.SIGHUP]
    heard = [each for each in heard if signal.getsignal(each) != signal.SIG_IGN]  # as of nohup
    before = {each: signal.signal(each, stop) for each in heard}
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(received[0]) from None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _begins(count: int) -> None:
    typer.echo(f"{count} runs to train; Ctrl-C stops, the same command goes on")


def _told(found: "Finished") -> None:
    """A line for each finished run, with the time left."""
    from manyface.observe.progress import format_duration

    line = f"[{found.done} of {found.total}] {found.name}: {found.accuracy:.3f}"
    if found.left is not None and found.done < found.total:
        line += f"; about {format_duration(found.left)} left"
    typer.echo(line)

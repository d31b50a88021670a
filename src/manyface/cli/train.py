"""`manyface train`: one run from a recipe."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from manyface.base.errors import ManyfaceError
from manyface.cli.options import Overrides
from manyface.config import Config


def train(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe (.toml), or the config.toml of an earlier run.")
    ],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")
    ] = False,
    resume_or_start: Annotated[
        bool,
        typer.Option("--resume-or-start", help="Go on with the run if there is one, else begin."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a run of that name.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    summary: Annotated[bool, typer.Option("--summary/--no-summary", hidden=True)] = True,
) -> None:
    """Train as a recipe says: backbone and head, with checkpoints and evaluation.

    \b
    Examples:
      manyface train recipes/lfw.toml --set data.path=/data/lfw.tar
      manyface train recipes/lfw.toml --set head.sample_rate=0.1 --set run.name=partial
      manyface train runs/partial/config.toml --resume
      torchrun --nproc-per-node 8 -m manyface train recipe.toml

    Everything goes to <run.directory>/<run.name>; given the config.toml of a run, to the folder
    it lies in, so a run may be copied or moved. Ctrl-C saves a checkpoint and stops.
    """
    from manyface.cli.tables import print_methods
    from manyface.observe.progress import SilentProgress, make_progress
    from manyface.parallel import is_first_rank
    from manyface.train.directory import load_recipe
    from manyface.train.run import Resume
    from manyface.train.run import train as run_training

    config = load_recipe(recipe, overrides or [])
    if resume + resume_or_start + force > 1:
        raise ManyfaceError("choose one of --resume, --resume-or-start and --force")
    how: Resume = "if-there" if resume_or_start else resume
    progress = (lambda name, *, num_steps: SilentProgress()) if quiet else make_progress
    try:
        done = run_training(config, resume=how, force=force, progress=progress)
    except KeyboardInterrupt:
        raise Aborted(config) from None
    if not summary or not is_first_rank():
        return
    print_methods([done.result])
    place = quote(str(done.directory))
    typer.echo(f"The run is in {done.directory}; look at it with: manyface report {place}")


class Aborted(ManyfaceError):
    """Ctrl-C where the run could not save first: before its first step, or pressed twice."""

    exit_code = 130

    def __init__(self, config: Config) -> None:
        from manyface.train.directory import describe_kept

        super().__init__(f"interrupted; {describe_kept(config.run_directory)}")

"""`manyface config`: a recipe as it is meant, with what every key says."""

from pathlib import Path
from typing import Annotated

import typer

from manyface.cli.options import Overrides
from manyface.config import load_config, parse_config


def config(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe; left out, the defaults are shown.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print a recipe with every key, its value and its meaning.

    \b
    The output is itself a recipe, so this starts one of your own:
      manyface config --set data.path=/my/faces > mine.toml
    """
    given = overrides or []
    resolved = parse_config("", given) if recipe is None else load_config(recipe, given)
    typer.echo(resolved.to_toml(described=True), nl=False)

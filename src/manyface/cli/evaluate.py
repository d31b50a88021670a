"""`manyface evaluate`: the scores of a run's net on pairs of faces."""

from pathlib import Path
from typing import Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import warn
from manyface.cli.options import Overrides


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    overrides: Overrides = None,
    checkpoint: Annotated[
        str, typer.Option(help='"last", "best", or the name of a folder in checkpoints.')
    ] = "last",
) -> None:
    """Verify with a trained net: which pairs of photos show one person?

    \b
    Examples:
      manyface evaluate runs/lfw
      manyface evaluate runs/lfw --checkpoint best
      manyface evaluate runs/lfw --set evaluation.pairs=pairsDevTest.txt
    """
    from manyface.cli.tables import print_scores
    from manyface.train.scoring import evaluate_run

    found = evaluate_run(run, checkpoint=checkpoint, overrides=overrides or [], warn=warn)
    if not found:
        raise ConfigError(
            f"{run} names no pairs to verify: give a list with --set evaluation.pairs=pairs.txt, "
            "or --set evaluation.pairs=synthetic"
        )
    for name, evaluation in found.items():
        print_scores(name, evaluation.scores)
        for note in evaluation.notes:
            typer.echo(f"note: {note}")

"""`manyface report`: one page that shows one run or compares several."""

import os
from pathlib import Path
from typing import Annotated

import typer

from manyface.cli.console import warn


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold runs.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The page; default report.html in the run, or in their parent."
        ),
    ] = None,
) -> None:
    """Write a self-contained HTML page: curves, ROC, errors, a table with costs.

    \b
    Examples:
      manyface report runs/lfw
      manyface report runs/full runs/partial -o comparison.html
      manyface report runs
    """
    from manyface.report.page import write_report

    common = Path(os.path.commonpath([run.absolute() for run in runs]))
    folder = runs[0] if len(runs) == 1 else common
    page = write_report(runs, output or folder / "report.html", warn=warn)
    typer.echo(f"Wrote {page}")

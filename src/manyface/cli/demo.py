"""`manyface demo`: full FC against Partial FC on synthetic faces, and the floors both must beat."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from manyface.base.errors import DataError
from manyface.cli.options import Overrides
from manyface.config import Config, parse_config

SAMPLE_RATE = 0.1


def demo(
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where the runs and the page go.")
    ] = Path("runs/demo"),
    overrides: Overrides = None,
) -> None:
    """Train full FC and Partial FC on synthetic faces and compare them, in a few minutes.

    Both train the same small net on the same photos for the same number of steps; both are then
    verified on people that neither has seen. Two baselines show what the task takes: whitened
    pixels, and the net before training. Writes report.html and results.json.
    """
    from manyface.cli.baselines import measure_baselines
    from manyface.cli.tables import print_methods
    from manyface.observe.progress import make_progress
    from manyface.report.page import write_report
    from manyface.train.run import train

    recipes = demo_recipes(directory, overrides or [])
    people = recipes[0].data.synthetic.num_identities
    rows = []
    for number, config in enumerate(recipes, start=1):
        share = "all" if config.head.method == "full" else f"{config.head.sample_rate:g} of"
        typer.echo(
            f"[{number}/{len(recipes)}] {config.run.name}: {people} people, "
            f"{share} class centers in each step"
        )
        rows.append(train(config, force=True, progress=make_progress).result)
    rows += measure_baselines(recipes[0])
    _write_results(directory / "results.json", rows)
    page = write_report([directory], directory / "report.html", title="manyface demo")
    typer.echo("\nVerification on people that no method has seen:")
    print_methods(rows)
    typer.echo(f"\nThe page with curves, ROC and errors: {page}")


def demo_recipes(directory: Path, overrides: list[str]) -> list[Config]:
    """The two recipes of the demo; they differ in the head's sample rate and their name only."""
    text = files("manyface.cli").joinpath("demo.toml").read_text(encoding="utf-8")
    shared = [*overrides, f"run.directory={directory}"]
    full = parse_config(text, [*shared, "run.name=full-fc"], source="demo.toml")
    partial = [*shared, "run.name=partial-fc", f"head.sample_rate={SAMPLE_RATE}"]
    return [full, parse_config(text, partial, source="demo.toml")]


def _write_results(path: Path, rows: list[dict[str, object]]) -> None:
    text = json.dumps({"methods": rows}, indent=1, ensure_ascii=False) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error

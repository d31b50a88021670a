"""`manyface demo`: full FC, Partial FC, F2C on synthetic faces, and the floors they must beat."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import write_text
from manyface.cli.options import Overrides
from manyface.config import Config, parse_config
from manyface.config.load import OF_CENTERS

SAMPLE_RATE = POOL_SHARE = 0.1


def demo(
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where the runs and the page go.")
    ] = Path("runs/demo"),
    overrides: Overrides = None,
) -> None:
    """Train full FC, Partial FC and F2C on synthetic faces and compare them, in a few minutes.

    All train the same small net on equally many photos of the same people; all are then verified
    on people that none has seen. Two baselines show what the task takes: whitened pixels, and the
    net before training. Writes report.html and results.json.
    """
    from manyface.cli.baselines import measure_baselines
    from manyface.cli.tables import print_methods
    from manyface.report.page import write_report

    recipes = demo_recipes(directory, overrides or [])
    people = recipes[0].data.synthetic.num_identities
    rows = []
    for number, config in enumerate(recipes, start=1):
        what = describe(config)
        typer.echo(f"[{number}/{len(recipes)}] {config.run.name}: {people} people, {what}")
        rows.append(_train_in_own_process(config))
    rows += measure_baselines(recipes[0])
    text = json.dumps({"methods": rows}, indent=1, ensure_ascii=False)
    write_text(directory / "results.json", text + "\n")
    page = write_report([directory], directory / "report.html", title="manyface demo")
    typer.echo("\nVerification on people that no method has seen:")
    print_methods(rows)
    typer.echo(f"\nThe page with curves, ROC and errors: {page}")


def demo_recipes(directory: Path, overrides: list[str]) -> list[Config]:
    """The recipes of the demo; they differ in what stands for the class centers, and in name.

    Overrides of class centers are for the methods that have them, those of [pool] for F2C.
    """
    for override in overrides:
        _check_free(override)
    text = files("manyface.cli").joinpath("demo.toml").read_text(encoding="utf-8")
    of_pool = [each for each in overrides if _key(each).startswith("pool.")]
    of_centers = [each for each in overrides if _key(each) in OF_CENTERS]
    rest = [each for each in overrides if each not in (*of_pool, *of_centers)]

    def recipe(*own: str) -> Config:
        return parse_config(text, [*rest, f"run.directory={directory}", *own], source="demo.toml")

    full = recipe("run.name=full-fc", *of_centers)
    partial = recipe("run.name=partial-fc", f"head.sample_rate={SAMPLE_RATE}", *of_centers)
    slots = [f"pool.slots={pool_slots(full)}"]
    if {"pool.slots", "pool.ratio"} & {_key(each) for each in of_pool}:
        slots = []
    return [full, partial, recipe("run.name=f2c", "head.method=f2c", *slots, *of_pool)]


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _check_free(override: str) -> None:
    if _key(override) in ("run.name", "run.directory", "head.method", "head.sample_rate"):
        raise ConfigError(
            f"--set {_key(override)}: the demo sets it, for it compares the methods; use "
            "`manyface train` for a run of your own, or --directory for another place"
        )


def pool_slots(config: Config) -> int:
    """A tenth of the people, but room for half a batch of different ones."""
    people = config.data.synthetic.num_identities
    return min(people, max(round(POOL_SHARE * people), config.train.batch_size // 2))


def describe(config: Config) -> str:
    """What a step scores its photos against."""
    if config.head.method == "f2c":
        slots = config.pool.slots or f"{config.pool.ratio:g}"
        return f"a pool of features of {slots} of them, no class centers"
    share = "all" if config.head.method == "full" else f"{config.head.sample_rate:g} of"
    return f"{share} class centers in each step"


def _train_in_own_process(config: Config) -> dict[str, Any]:
    """`manyface train` on `config`: so that peak memory is this method's own."""
    recipe = config.run_directory.with_suffix(".toml")
    write_text(recipe, config.to_toml())
    command = [sys.executable, "-m", "manyface", "train", str(recipe), "--force", "--no-summary"]
    with subprocess.Popen(command) as process:  # noqa: S603  ourselves
        before = {
            number: signal.signal(number, lambda number, frame: process.send_signal(number))
            for number in (signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) != signal.SIG_IGN
        }
        try:
            while process.poll() is None:
                with suppress(KeyboardInterrupt):  # the run hears it too, saves, and says so
                    process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if process.returncode:
        raise typer.Exit(exit_code_of(process.returncode))
    result: dict[str, Any] = json.loads((config.run_directory / "result.json").read_text("utf-8"))
    return result


def exit_code_of(returncode: int) -> int:
    """Of a process, as a shell gives it: 128 + signal where one ended it."""
    return returncode if returncode > 0 else 128 - returncode

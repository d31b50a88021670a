"""`manyface plan`: what a recipe will take, before anything runs."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import write_text
from manyface.cli.options import Overrides

if TYPE_CHECKING:
    from rich.console import Console

    from manyface.config import Config
    from manyface.plan import Cluster, Prediction
    from manyface.plan.prediction import Bytes, Seconds
    from manyface.plan.saving import Saving
    from manyface.plan.traffic import Collective

_GPU = "h100"


def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.toml).")],
    overrides: Overrides = None,
    identities: Annotated[
        int | None,
        typer.Option(help="Number of people, where the data are not here; default: counted."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(help="Plan for so many GPUs, up to 8 in a machine, that share the centers."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Which: v100, a100, h100, h200, l40s, rtx4090; default: h100."),
    ] = None,
    network_gbit: Annotated[
        float, typer.Option(help="With --gpus: Gbit/s of each GPU to other machines.")
    ] = 400.0,
    host_gib: Annotated[
        float | None,
        typer.Option(help="With --gpus: host memory for each GPU; default: usual with its kind."),
    ] = None,
    disk_gb: Annotated[
        float, typer.Option(help="With --gpus: GB/s at which a machine writes checkpoints.")
    ] = 1.0,
    file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")
    ] = None,
) -> None:
    """Bytes and seconds of a step, before anything runs, and what to change.

    Without --gpus: for this machine. Small copies of net and head run for some seconds; bytes and
    seconds of the recipe follow from them. With --gpus: bytes are counted the same way, seconds
    are computed from the GPU's data sheet, with the collectives of a step, what a checkpoint takes
    and all assumptions. train.batch_size is that of all GPUs.

    \b
    Examples:
      manyface plan recipes/lfw.toml --set head.sample_rate=0.1
      manyface plan recipe.toml --identities 100000000 --gpus 64 --set train.batch_size=8192
    """
    from manyface.plan import Cluster, advice, fewest_gpus
    from manyface.train.directory import load_recipe

    config = load_recipe(recipe, overrides or [])
    if identities is not None and identities < 2:
        raise ConfigError(f"expected --identities of at least 2, got {identities}")
    if gpu is not None and gpus is None:
        raise ConfigError(f"expected --gpus, how many of --gpu {gpu}, got none; add --gpus 1")
    cluster, fewest = None, None
    if gpus is not None:
        cluster = Cluster(gpu or _GPU, gpus, network_gbit, host_gib, disk_gb)
        identities = count = identities or _count_identities(config)
        fewest = partial(fewest_gpus, identities=count, cluster=cluster)
    if file is not None:
        write_text(file, "", mode="a")  # that it can be written is tried before
    found = _predict(config, identities, cluster)
    replan = partial(_predict, identities=identities, cluster=cluster, timed=False)
    said = advice(config, found, replan, fewest=fewest)
    _print(found, said)
    if file is not None:
        write_text(file, json.dumps({**found.as_dict(), "advice": said}, indent=2) + "\n")


def _predict(
    config: "Config", identities: int | None, cluster: "Cluster | None", *, timed: bool = True
) -> "Prediction":
    from rich.console import Console

    from manyface.plan import plan_for_gpus, plan_here

    with Console(stderr=True).status("measuring") as status:

        def report(text: str) -> None:
            status.update(f"measuring: {text}")

        if cluster is None or identities is None:
            return plan_here(config, identities=identities, report=report, timed=timed)
        return plan_for_gpus(config, identities=identities, cluster=cluster)


def _count_identities(config: "Config") -> int:
    from manyface.train.build_data import build_source

    return build_source(config, warn=lambda text: None).num_identities


def _print(found: "Prediction", said: list[str]) -> None:
    """A line for each part that there is; then the sums, and what to change."""
    from manyface.cli.console import format_bytes, make_console
    from manyface.cli.measured_table import format_seconds

    console = make_console()
    console.print(
        f"{found.method}: {found.identities:,} identities, {found.active:,} classes scored, batch "
        f"{found.batch_size}\n{found.where}\n"
    )
    if found.ranks > 1:
        rows = -(-found.identities // found.ranks)
        console.print(f"a rank: centers or features of {rows:,} identities at most")
    of = "" if found.ranks == 1 else " of one rank"
    _print_parts(console, found.bytes, format_bytes)
    _print_sum(console, f"memory{of}", found.bytes.peak, found.available)
    if found.host is not None:
        console.print()
        _print_parts(console, found.host, format_bytes)
        _print_sum(console, f"host memory{of}", found.host.peak, found.host_available)
    if found.disk is not None:
        _print_sum(console, "disk", found.bytes.files, found.disk)
    console.print()
    _print_parts(console, found.seconds, format_seconds)
    console.print(f"{'step':<26}{format_seconds(found.seconds.step):>11}  {_rate(found)}")
    if found.collectives:
        _print_collectives(console, found.collectives)
    if found.saving is not None:
        _print_saving(console, found.saving)
    for sentence in said:
        console.print(f"\n{sentence}")
    if found.assumptions:
        console.print("\nAssumed:")
    for sentence in found.assumptions:
        console.print(f"- {sentence}")


def _print_collectives(console: "Console", said: "tuple[Collective, ...]") -> None:
    """Bytes that a rank passes in at a call, seconds of an update, and what is waited for."""
    from rich.table import Table

    from manyface.cli.console import format_bytes
    from manyface.cli.measured_table import format_seconds

    table = Table(box=None, pad_edge=False)
    table.add_column("\ncollectives", overflow="fold")
    table.add_column("\nkind", overflow="fold")
    for heading in ("bytes of\na rank", "calls", "seconds\nof all", "of them\nwaited"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in said:
        times = (format_seconds(each.seconds), format_seconds(each.waited))
        table.add_row(each.name, each.kind, format_bytes(each.passed), str(each.calls), *times)
    console.print()
    console.print(table)


def _print_saving(console: "Console", saving: "Saving") -> None:
    from manyface.cli.console import format_bytes
    from manyface.cli.measured_table import format_seconds

    how = "for the copy into host memory" if saving.is_staged else "until it is written"
    console.print(
        f"\ncheckpoint: {format_bytes(saving.of_rank)} of a rank, {format_bytes(saving.of_all)} in "
        f"all, written in {format_seconds(saving.seconds)}; training waits "
        f"{format_seconds(saving.pause)} {how}\n"
        f"torchrun --shutdown-timeout {saving.shutdown}"
    )


def _print_parts(
    console: "Console", parts: "Bytes | Seconds", words: Callable[[float], str]
) -> None:
    from manyface.plan.prediction import WORDS

    for name, value in vars(parts).items():
        if value:
            console.print(f"  {WORDS.get(name, name):<24}{words(value):>11}")


def _print_sum(console: "Console", name: str, needed: int, there: int | None) -> None:
    from manyface.cli.console import format_bytes

    of = ""
    if there is not None:
        of = f"of {format_bytes(there)}{'' if needed <= there else ': DOES NOT FIT'}"
    console.print(f"{name:<26}{format_bytes(needed):>11}  {of}".rstrip())


def _rate(found: "Prediction") -> str:
    text = f"{found.images_per_second:,.0f} distinct images/s"
    if found.steps is None:
        return text
    hours = found.steps * found.seconds.step / 3600
    return f"{text}, {hours:.1f} hours" if hours >= 1 else f"{text}, {60 * hours:.0f} minutes"

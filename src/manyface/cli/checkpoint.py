"""`manyface checkpoint`: look at checkpoints, check them, put them into other files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyface.base.errors import WriteError

if TYPE_CHECKING:
    from manyface.checkpoint import Overview

Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="A checkpoint (step-...), or the folder of a run: its newest one."
    ),
]

app = typer.Typer(
    help="Look at checkpoints, check them, put them into other files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("inspect", short_help="What a checkpoint holds.")
def inspect(directory: Directory) -> None:
    """Print step, ranks, position, and every tensor with its dtype, shape and bytes.

    Sizes are checked, contents are not: that is `manyface checkpoint verify`.

    \b
    Examples:
      manyface checkpoint inspect runs/lfw
      manyface checkpoint inspect runs/lfw/checkpoints/step-00001200
    """
    from manyface.checkpoint import find_checkpoint, overview

    _print(overview(find_checkpoint(directory)))


@app.command("verify", short_help="Check every byte of a checkpoint.")
def verify(directory: Directory) -> None:
    """Check every file against its hashes; a damaged one is named, and the exit code is 1.

    \b
    Examples:
      manyface checkpoint verify runs/lfw
    """
    from manyface.checkpoint import find_checkpoint, load

    path = find_checkpoint(directory)
    load(path)
    typer.echo(f"OK: {path}")


@app.command("merge", short_help="One file for each group, of a checkpoint of several ranks.")
def merge(
    directory: Directory,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="A folder for the new checkpoint.")
    ],
) -> None:
    """Write a checkpoint of several ranks again as one process would have.

    To go on from a checkpoint with other ranks this is not needed: any number reads any other.

    \b
    Examples:
      manyface checkpoint merge runs/big -o merged
    """
    from manyface.checkpoint import find_checkpoint
    from manyface.checkpoint import merge as rewrite

    typer.echo(f"Wrote {rewrite(find_checkpoint(directory), output)}")


@app.command("export", short_help="The weights of the net as one safetensors file.")
def export(
    directory: Directory,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The safetensors file to write.")
    ],
) -> None:
    """Write the weights of the net, averaged ones where the run has them; nothing of the head.

    \b
    Examples:
      manyface checkpoint export runs/lfw -o lfw.safetensors
    """
    from manyface.checkpoint import export_weights, find_checkpoint

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        group = export_weights(find_checkpoint(directory), output)
    except OSError as error:
        raise WriteError(output, error) from error
    typer.echo(f"Wrote {output}, the weights of {group!r}")
    typer.echo(
        "note: weights, and that they take RGB; nothing else of how images are prepared for them "
        "is in the file (manyface export writes one that says so)"
    )


def _print(found: "Overview") -> None:
    """Facts about the whole, then a table for each group."""
    from manyface.cli.console import format_bytes, make_console

    console = make_console()
    ranks = "1 rank" if found.num_ranks == 1 else f"{found.num_ranks} ranks"
    console.print(f"{found.path}\nstep {found.step}, of {ranks}, {format_bytes(found.num_bytes)}")
    facts = {**found.state.get("position", {}), **found.state.get("data", {})}
    facts.pop("step", None)
    for name, value in facts.items():
        console.print(f"  {name.replace('_', ' '):<20}{_value(value)}")
    for name, members in found.groups.items():
        total = sum(each.num_bytes for each in members.values())
        tensors = "1 tensor" if len(members) == 1 else f"{len(members)} tensors"
        console.print(f"\n{name}: {tensors}, {format_bytes(total)}")
        if members:
            console.print(_table(members, console.width))


def _table(members: dict[str, Any], width: int) -> Any:
    from rich.table import Table

    from manyface.cli.console import format_bytes

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    files = width >= 60 and any(each.num_files > 1 for each in members.values())
    for name, each in members.items():
        shape = "x".join(map(str, each.shape)) or "scalar"
        row = [name, each.dtype, shape, format_bytes(each.num_bytes)]
        if files:
            row.append(f"in {each.num_files} files" if each.num_files > 1 else "")
        table.add_row(*row)
    return table


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""How results are printed: rich tables, plain where there is no terminal."""

import typer
from rich.console import Console


def make_console() -> Console:
    """A console on stdout that prints what it is given, without markup or guessing at colours."""
    return Console(markup=False, highlight=False, emoji=False)


def warn(text: str) -> None:
    """A line on stderr."""
    typer.echo(f"warning: {text}", err=True)


def format_bytes(count: float) -> str:
    """Bytes with a unit of 1024: 512 B, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

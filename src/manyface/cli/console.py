"""How results are printed: rich tables, plain where there is no terminal."""

import re
from pathlib import Path

import typer
from rich.console import Console

from manyface.base.errors import WriteError

# Control characters, ends of lines, directions, and what is left of a name that is no UTF-8.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def make_console() -> Console:
    """A console on stdout that prints what it is given, without markup or guessing at colours."""
    return Console(markup=False, highlight=False, emoji=False)


def warn(text: str) -> None:
    """A line on stderr."""
    tell(f"warning: {text}")


def tell(text: str) -> None:
    """A line on stderr."""
    typer.echo(shown(text), err=True)


def shown(text: str) -> str:
    """`text` on one line, for names from anywhere: signs that end the line, move the cursor, colour
    the terminal or turn the direction of reading are written as escapes."""
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_text(path: Path, text: str, *, mode: str = "w") -> None:
    """Write a file that the user has asked for, its folder too; names of files as they are.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as error:
        raise WriteError(path, error) from error


def format_bytes(count: float) -> str:
    """Bytes with a unit of 1024: 512 B, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"

"""Tables of measurements: a line each, with figures or why there are none, at any width."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from manyface.cli.console import format_bytes, make_console

Figures = dict[str, Any]
# Heading, text of what ran, and the narrowest terminal in which it is worth its place.
Column = tuple[str, Callable[[Figures], str], int]


def print_measured(
    heading: str,
    measured: Mapping[str, Figures],
    *,
    columns: Sequence[Column],
    notes: Iterable[str],
) -> None:
    """Name -> figures as lines under `heading` and the columns that fit; then the notes."""
    console = make_console()
    fitting = [column for column in columns if console.width >= column[2]]
    rows = {name: [text(found) for _, text, _ in fitting] for name, found in ran(measured).items()}
    headings = [each for each, _, _ in fitting]
    widths = [max(map(len, cells)) for cells in zip(headings, *rows.values(), strict=True)]
    first = max(map(len, (heading, *measured)))
    if rows:
        console.print(_line(heading, headings, first, widths))
    for name, found in measured.items():
        if name in rows:
            console.print(_line(name, rows[name], first, widths))
        else:
            console.print(f"{name:<{first}} {_why_not(found)}")
    for note in notes:
        console.print(note)


def ran(measured: Mapping[str, Figures]) -> dict[str, Figures]:
    """Those that have times."""
    return {name: found for name, found in measured.items() if "step_seconds" in found}


def format_seconds(seconds: float) -> str:
    """Seconds to three digits: 0.412 ms, 41.2 ms, 4.12 s."""
    if seconds >= 0.9995:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{1e3 * seconds:.3g} ms"


def _line(name: str, cells: list[str], first: int, widths: list[int]) -> str:
    right = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return " ".join([f"{name:<{first}}", *right])


def _why_not(found: Figures) -> str:
    if "error" in found:
        return f"died: {found['error']}"
    needed, left = format_bytes(found["needed_bytes"]), format_bytes(found["available_bytes"])
    return f"does not fit yet: needs {needed}, {left} free"

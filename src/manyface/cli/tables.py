"""Results as tables that fit the terminal: where it is narrow, columns give way, not the names."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from manyface.cli.console import format_bytes, make_console

if TYPE_CHECKING:
    from manyface.evaluate.result import ProtocolResult, Score

Row = dict[str, Any]
NONE = "-"
_ROOM_FOR_INTERVALS = 60


def print_methods(rows: Sequence[Row]) -> None:
    """One line per method (a result.json or a baseline): quality first, then cost."""
    console = make_console()
    # Heading, text of a row, and the narrowest terminal in which the column is worth its place.
    columns: list[tuple[str, Callable[[Row], str], int]] = [
        ("accuracy", _accuracy, 0),
        ("TAR@FAR 0.01", lambda row: _percent(row["tar_at_far"].get("0.01")), 50),
        ("time", lambda row: _known(row["train_seconds"], _duration), 40),
        ("images/s", lambda row: _known(row["images_per_second"], "{:.0f}".format), 62),
        ("memory", lambda row: _known(row["peak_memory_bytes"], format_bytes), 72),
    ]
    columns = [column for column in columns if console.width >= column[2]]
    table = Table(box=None, pad_edge=False)
    table.add_column("method", overflow="fold")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(str(row["name"]), *(text(row) for _, text, _ in columns))
    console.print(table)


def print_scores(name: str, scores: Sequence["Score"]) -> None:
    """The scores of one set of pairs with their intervals, and how they were measured."""
    console = make_console()
    table = Table(box=None, pad_edge=False)
    table.add_column(name, overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    for score in scores:
        table.add_row(score.name, f"{score.value:.4f}", _interval(score))
    console.print(table)
    for protocol in dict.fromkeys(score.protocol for score in scores[:1]):
        console.print(f"accuracy: {protocol}")


def print_results(results: Sequence["ProtocolResult"]) -> None:
    """All scores of all sets in one table, then what has to be known of them."""
    console = make_console()
    table = Table(box=None, pad_edge=False)
    table.add_column("set", overflow="fold")
    table.add_column("score", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    if console.width >= _ROOM_FOR_INTERVALS:
        table.add_column("95 % interval", no_wrap=True)
    for result in results:
        for number, score in enumerate(result.scores):
            name = "" if number else result.name
            row = [name, score.name, f"{score.value:.4f}", _interval(score)]
            table.add_row(*row[: len(table.columns)])
    console.print(table)
    for result in results:
        console.print(f"{result.name}: {result.protocol}", soft_wrap=True)
        for note in result.notes:
            console.print(f"note: {result.name}: {note}", soft_wrap=True)


def _interval(score: "Score") -> str:
    known = score.low is not None and score.high is not None
    return f"{score.low:.4f} to {score.high:.4f}" if known else NONE


def _accuracy(row: Row) -> str:
    mean, spread = row["verification_accuracy"], row.get("verification_std")
    return _percent(mean) + ("" if mean is None or spread is None else f" ± {100 * spread:.1f}")


def _percent(share: float | None) -> str:
    return _known(share, lambda value: f"{100 * value:.1f} %")


def _known(value: float | None, text: Callable[[float], str]) -> str:
    return NONE if value is None else text(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"

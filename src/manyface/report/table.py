"""The summary of several methods as a table for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from manyface.report import numbers
from manyface.report.rows import accuracy_of, fars_of, tar_of


def summary_table(rows: Sequence[dict[str, Any]], *, title: str | None = None) -> Table:
    """A rich table of result rows (result.json of runs, or the "methods" of a results.json)."""
    fars = fars_of(rows)
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("method", overflow="fold")
    numeric = ["accuracy", "95 % interval", *(f"TAR at FAR {numbers.far_name(f)}" for f in fars)]
    for name in [*numeric, "identities", "sample rate", "images/s", "memory", "training"]:
        table.add_column(name, justify="right")
    for row in rows:
        accuracy, spread, score = accuracy_of(row)
        plus_minus = "" if spread is None else f" \u00b1 {100 * spread:.1f}"
        table.add_row(
            escape(str(row.get("name", numbers.MISSING))),
            numbers.percent(accuracy) + plus_minus,
            numbers.interval(score.get("low"), score.get("high")) or numbers.MISSING,
            *(numbers.percent(tar_of(row, far)[0]) for far in fars),
            numbers.count(row.get("num_identities")),
            numbers.plain(row.get("sample_rate")),
            numbers.count(row.get("images_per_second")),
            numbers.size(row.get("peak_memory_bytes")),
            numbers.duration(row.get("train_seconds")),
        )
    return table

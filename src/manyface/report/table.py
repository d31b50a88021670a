"""The summary of several methods as a table for the terminal, made to fit 80 columns."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from manyface.report import numbers
from manyface.report.rows import accuracy_of, fars_of, tar_of

# The page has them all; 80 columns have room for the hardest.
_MAX_FARS = 1


def summary_table(rows: Sequence[dict[str, Any]], *, title: str | None = None) -> Table:
    """A rich table of result rows (result.json of runs, or the "methods" of a results.json).

    Under an accuracy stands its 95 % interval, after it the spread over folds.
    """
    fars = fars_of(rows)[-_MAX_FARS:]
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold", min_width=12)
    tars = [f"TAR at\nFAR {numbers.far_name(far)}" for far in fars]
    cost = ["people", "rate", "images/s", "memory", "training"]
    for name in ["accuracy", *tars, *cost]:
        table.add_column(name, justify="right", no_wrap=True, vertical="top")
    for row in rows:
        table.add_row(
            escape(str(row.get("name", numbers.MISSING))),
            _accuracy(row),
            *(numbers.percent(tar_of(row, far)[0]) for far in fars),
            numbers.count(row.get("num_identities")),
            numbers.plain(row.get("sample_rate")),
            numbers.count(row.get("images_per_second")),
            numbers.size(row.get("peak_memory_bytes")),
            numbers.duration(row.get("train_seconds")),
        )
    return table


def _accuracy(row: dict[str, Any]) -> str:
    accuracy, spread, score = accuracy_of(row)
    if accuracy is None:
        return numbers.MISSING
    value = f"{100 * accuracy:.1f}" + (" %" if spread is None else f" \u00b1 {100 * spread:.1f} %")
    limits = numbers.interval(score.get("low"), score.get("high"))
    return f"{value}\n[dim]{limits}[/dim]" if limits else value

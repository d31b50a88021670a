"""What a study shows: tables as Markdown, pictures with error bars, and a page that holds both."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from manyface.report import charts, html, svg
from manyface.report.document import alone, document, header, write_page
from manyface.studies.cells import Study, Table
from manyface.studies.differences import Difference
from manyface.studies.judging import Line

HEADINGS = ("", "accuracy of each seed", "mean", "spread", "difference")


@dataclass(frozen=True)
class Judged:
    """A table and its finished lines."""

    table: Table
    lines: list[Line]


def line_of(judged: Sequence[Judged], table: str, cell: str) -> Line | None:
    """The line of a cell, by the title of its table and its name; None if it is not finished."""
    for each in judged:
        for line in each.lines:
            if (each.table.title, line.cell.name) == (table, cell):
                return line
    return None


def rows(judged: Judged) -> list[list[str]]:
    """The cells of the table, as text."""
    return [_row(line) for line in judged.lines]


def _row(line: Line) -> list[str]:
    return [
        line.cell.name,
        " ".join(f"{accuracy:.3f}" for accuracy in line.accuracies),
        f"{line.mean:.3f}",
        "" if line.spread is None else f"{line.spread:.3f}",
        _points(line.less),
    ]


def _points(found: Difference | None) -> str:
    return "" if found is None else f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(
        f"| {' | '.join(each)} |" for each in (headings, ["---"] * len(headings), *lines)
    )


def picture(judged: Judged) -> str:
    """A dot for each mean with a bar of one spread to either side."""
    estimates = []
    for line in judged.lines:
        low, high = line.ends or (None, None)
        style = 0 if line.cell.name == judged.table.baseline else 1
        estimates.append(charts.Estimate(line.cell.name, line.mean, low, high, style))
    return charts.intervals_chart(estimates, name=judged.table.title)


def write_study(study: Study, judged: Sequence[Judged], folder: Path, *, command: str) -> Path:
    """<study>.html, <study>.md and a picture of each table in `folder`; the page's path."""
    write_page(_markdown_of(study, judged, command), folder / f"{study.name}.md")
    for number, each in enumerate(judged, start=1):
        write_page(alone(picture(each)), folder / f"{study.name}-{number}.svg")
    return write_page(_page(study, judged, command), folder / f"{study.name}.html")


def _markdown_of(study: Study, judged: Sequence[Judged], command: str) -> str:
    parts = [f"# {study.title}", study.question, f"`{command}`"]
    for number, each in enumerate(judged, start=1):
        title = each.table.title
        parts += [f"## {title}", markdown(HEADINGS, rows(each)), _against(each.table)]
        parts += [markdown(*found) for found in _looks(each)]
        parts.append(f"![{title}]({study.name}-{number}.svg)")
    return "\n\n".join(parts) + "\n"


def _against(table: Table) -> str:
    return (
        f"Difference: points of accuracy less {table.baseline}, mean over the seeds that both "
        "have, with its 95 % interval: people of the pairs resampled, and the spread over seeds, "
        "pooled over the table's cells (where there is one seed alone, it is not in it)."
    )


def _page(study: Study, judged: Sequence[Judged], command: str) -> str:
    body = [header("manyface reproduce", study.title)]
    for number, each in enumerate(judged):
        lead = study.question if number == 0 else ""
        body.append(_section(each, lead=lead))
    changes = [
        f"{line.cell.name}: {' '.join(line.cell.changes) or 'the recipe as it is'}"
        for each in judged
        for line in each.lines
    ]
    body.append(html.section("The exact command", html.code(command), _list(changes)))
    return document(study.title, "".join(body))


def _list(changes: Sequence[str]) -> str:
    listed = html.listing(list(dict.fromkeys(changes)), classes="notes")
    return html.folded("What each cell changes in the recipe", listed)


def _section(judged: Judged, *, lead: str) -> str:
    title = judged.table.title
    cells = [[escape(cell) for cell in row] for row in rows(judged)]
    return html.section(
        title,
        html.table(HEADINGS, cells, name=title),
        html.grid([html.figure(title, picture(judged), note=_against(judged.table))]),
        html.grid(_cosine_charts(judged)),
        *(_look_table(*found) for found in _looks(judged)),
        lead=lead,
    )


def _look_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [[escape(cell) for cell in row] for row in lines]
    return html.table(headings, cells, name=headings[-1])


# --- what was looked at ---------------------------------------------------------------------------


def _looks(judged: Judged) -> list[tuple[list[str], list[list[str]]]]:
    """Headings and lines of a table for each kind of look that there is."""
    found = (_last_cosines(judged), _of_groups(judged, "groups"), _of_groups(judged, "updates"))
    return [(headings, lines) for headings, lines in found if lines]


def _last_cosines(judged: Judged) -> tuple[list[str], list[list[str]]]:
    headings = ["at the end of training", "cosine to the own center", "to the nearest other"]
    lines = []
    for line in judged.lines:
        ends = [run["looks"]["cosines"][-1] for run in line.runs if run["looks"].get("cosines")]
        if ends:
            means = [_mean(ends, key) for key in ("own", "nearest_other")]
            lines.append([line.cell.name, *(f"{mean:.3f}" for mean in means)])
    return headings, lines


def _of_groups(judged: Judged, look: str) -> tuple[list[str], list[list[str]]]:
    """A line for each cell, a column for each group of people."""
    found = [(line, [run["looks"][look] for run in line.runs if run["looks"].get(look)])
             for line in judged.lines]  # fmt: skip
    found = [(line, each) for line, each in found if each]
    if not found:
        return [], []
    names = [group["group"] for group in found[0][1][0]]
    what = {"groups": "accuracy on new photos", "updates": "updates with, without an own image"}
    lines = [
        [line.cell.name, *(_of_group([run[n] for run in each]) for n in range(len(names)))]
        for line, each in found
    ]
    return [what[look], *names], lines


def _of_group(runs: Sequence[dict[str, Any]]) -> str:
    if "accuracy" in runs[0]:
        return f"{_mean(runs, 'accuracy'):.3f}"
    return f"{_mean(runs, 'own'):,.1f}, {_mean(runs, 'passive'):,.1f}"


def _mean(rows_of_runs: Sequence[dict[str, Any]], key: str) -> float:
    return float(sum(each[key] for each in rows_of_runs) / len(rows_of_runs))


def _cosine_charts(judged: Judged) -> list[str]:
    """Cosines over training, of the first seed."""
    charts_of = {"own": "Cosine to the own center", "nearest_other": "To the nearest other center"}
    curves = [
        (line.cell.name, line.runs[0]["looks"]["cosines"])
        for line in judged.lines
        if line.runs[0]["looks"].get("cosines")
    ]
    if not curves:
        return []
    keys = svg.legend([(n, f"line s{k % svg.NUM_STYLES}") for k, (n, _) in enumerate(curves)])
    return [
        html.figure(title, charts.curves_chart(_curves_of(curves, key), name=title), legend=keys)
        for key, title in charts_of.items()
    ]


def _curves_of(found: Sequence[tuple[str, list[dict[str, float]]]], key: str) -> list[charts.Curve]:
    return [
        charts.Curve(name, style, [each["step"] for each in steps], [each[key] for each in steps])
        for style, (name, steps) in enumerate(found)
    ]

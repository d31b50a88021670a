"""What a study shows: tables as Markdown, pictures with error bars, and a page that holds both."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from manyface.report import charts, html, svg
from manyface.report.document import alone, document, header, write_page
from manyface.studies.cells import Study
from manyface.studies.judging import Line
from manyface.studies.tables import (
    Judged,
    Text,
    about,
    in_points,
    line_of,
    looks_of,
    markdown,
    said,
    text_of,
    trained_on,
)

Named = tuple[str, str]  # a cell, and what it changes
_CHANGES = "What each cell changes in the recipe"


def write_study(study: Study, judged: Sequence[Judged], folder: Path, *, command: str) -> Path:
    """<study>.html, <study>.md and pictures of its tables in `folder`; the page's path."""
    drawings = [picture(each) for each in judged]
    write_page(_markdown_of(study, judged, command), folder / f"{study.name}.md")
    for number, drawing in enumerate(drawings, start=1):
        if drawing:
            write_page(alone(drawing), folder / f"{study.name}-{number}.svg")
    return write_page(_page(study, judged, drawings, command), folder / f"{study.name}.html")


def picture(judged: Judged) -> str:
    """A dot for each mean, with the interval of its difference; "" where columns say more."""
    if judged.table.columns:
        return ""
    base = line_of([judged], judged.table.title, judged.table.baseline)
    estimates = [_estimate(line, is_baseline=line is base) for line in judged.lines]
    against = base.mean if base else None
    return charts.intervals_chart(estimates, name=judged.table.title, against=against)


def _estimate(line: Line, *, is_baseline: bool) -> charts.Estimate:
    low, high = line.ends or (None, None)
    words = "" if line.less is None else f"{in_points(line.less)} points"
    return charts.Estimate(line.cell.name, line.mean, low, high, 0 if is_baseline else 1, words)


def _bars(judged: Judged) -> str:
    return f"Bars: 95 % of the difference from {judged.table.baseline}, whose mean is the line"


def _markdown_of(study: Study, judged: Sequence[Judged], command: str) -> str:
    parts = [f"# {study.title}", study.question, f"`{command}`"]
    for number, each in enumerate(judged, start=1):
        title = each.table.title
        parts += [f"## {title}", each.table.note, markdown(*text_of(each, judged))]
        parts.append(" ".join(said(each)))
        parts += [markdown(*found) for found in looks_of(each, study.looks)]
        if not each.table.columns:
            parts += [f"![{title}]({study.name}-{number}.svg)", f"{_bars(each)}."]
    parts += [f"## {_CHANGES}", _listed(_changes(judged))]
    parts += ["## How to read it", *about(judged), trained_on(judged)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _listed(changes: Sequence[Named]) -> str:
    return "\n".join(f"- {name}: `{changed}`" for name, changed in changes)


def _page(study: Study, judged: Sequence[Judged], drawings: Sequence[str], command: str) -> str:
    leads = [study.question, *[""] * (len(judged) - 1)]  # the first begins with the question
    body = [
        header("manyface reproduce", study.title),
        *(
            _section(each, text_of(each, judged), drawing, lead=lead, looks=study.looks)
            for each, drawing, lead in zip(judged, drawings, leads, strict=True)
        ),
        html.section("The exact command", html.code(command), _folded(_changes(judged))),
        html.section(
            "How to read it", html.listing([*about(judged), trained_on(judged)], classes="notes")
        ),
    ]
    return document(study.title, "".join(body))


def _changes(judged: Sequence[Judged]) -> list[Named]:
    """Of each cell; one name may stand for several recipes, in tables of their own."""
    changes = [
        (line.cell.name, " ".join(line.cell.changes) or "the recipe as it is")
        for each in judged
        for line in each.lines
    ]
    return list(dict.fromkeys(changes))


def _folded(changes: Sequence[Named]) -> str:
    listed = [f"{name}: {changed}" for name, changed in changes]
    return html.folded(_CHANGES, html.listing(listed, classes="notes"))


def _section(judged: Judged, text: Text, drawing: str, *, lead: str, looks: Sequence[str]) -> str:
    """A table with all that belongs to it."""
    title = judged.table.title
    return html.section(
        title,
        _table(text, name=title),
        html.listing(said(judged), classes="notes"),
        html.grid([html.figure(title, drawing, note=_bars(judged))] if drawing else []),
        html.grid(list(_cosine_charts(judged, looks))),
        *(_table(found, name=found[0][0]) for found in looks_of(judged, looks)),
        lead=f"{lead} {judged.table.note}".strip(),
    )


def _table(text: Text, *, name: str) -> str:
    headings, lines = text
    return html.table(headings, [[escape(cell) for cell in line] for line in lines], name=name)


def _cosine_charts(judged: Judged, looks: Sequence[str]) -> Iterator[str]:
    """Cosines over training, of the first seed; of as many cells as there are styles."""
    curves = [
        (line.cell.name, line.runs[0]["looks"]["cosines"])
        for line in judged.lines
        if len(line.runs[0]["looks"].get("cosines", ())) > 1
    ]
    if "cosines" not in looks or judged.table.columns or not curves:
        return
    shown = np.linspace(0, len(curves) - 1, min(svg.NUM_STYLES, len(curves))).round()
    curves = [curves[int(k)] for k in shown]
    keys = svg.legend([(name, f"line s{k}") for k, (name, _) in enumerate(curves)])
    for key, title in {
        "own": "Cosine to the own center",
        "nearest_other": "To the nearest other center",
    }.items():
        drawing = charts.curves_chart(_curves_of(curves, key), name=title)
        yield html.figure(title, drawing, legend=keys)


def _curves_of(found: Sequence[tuple[str, list[dict[str, float]]]], key: str) -> list[charts.Curve]:
    return [
        charts.Curve(name, style, [each["step"] for each in steps], [each[key] for each in steps])
        for style, (name, steps) in enumerate(found)
    ]

"""What a study shows: tables as Markdown, pictures with error bars, and a page that holds both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from manyface.report import charts, html, svg
from manyface.report.document import alone, document, header, write_page
from manyface.studies.cells import Cell, Scale, Study
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

_CHANGES = "What each cell changes in its recipe"
_ONE_RUN = (
    "One run: `manyface train RECIPE --set run.seed=0`, and each change after a `--set` of its "
    "own. Recipes are in src/manyface/studies."
)


@dataclass(frozen=True)
class Shown:
    """What is shown of a study.

    Attributes:
        study: which.
        judged: its tables that have something finished.
        scale: of its runs.
        command: that made them.
        missing: number of its runs that are not finished.
    """

    study: Study
    judged: Sequence[Judged]
    scale: Scale
    command: str
    missing: int = 0

    @property
    def unfinished(self) -> str:
        """That something is missing, if it is."""
        if not self.missing:
            return ""
        return f"Unfinished: {self.missing} of its runs are missing, and tables that need them."

    def about(self) -> list[str]:
        """How to read it."""
        return [*about(self.judged, self.scale.name), trained_on(self.judged)]


def write_study(shown: Shown, folder: Path) -> Path:
    """<study>.html, <study>.md and pictures of its tables in `folder`; the page's path."""
    drawings, name = [picture(each) for each in shown.judged], shown.study.name
    write_page(_markdown_of(shown), folder / f"{name}.md")
    for old in folder.glob(f"{name}-*.svg"):
        old.unlink()
    for number, drawing in enumerate(drawings, start=1):
        if drawing:
            write_page(alone(drawing), folder / f"{name}-{number}.svg")
    return write_page(_page(shown, drawings), folder / f"{name}.html")


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


def _markdown_of(shown: Shown) -> str:
    study, judged = shown.study, shown.judged
    parts = [f"# {study.title}", study.question, shown.unfinished, f"`{shown.command}`"]
    for number, each in enumerate(judged, start=1):
        title = each.table.title
        parts += [f"## {title}", each.table.note, markdown(*text_of(each, judged))]
        parts.append(" ".join(said(each)))
        parts += [markdown(*found) for found in looks_of(each, study.looks)]
        if not each.table.columns:
            parts += [f"![{title}]({study.name}-{number}.svg)", f"{_bars(each)}."]
    parts += [f"## {_CHANGES}", _ONE_RUN, *map(_listed, _changes(shown).items())]
    parts += ["## How to read it", *shown.about()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _listed(of_table: tuple[str, list[str]]) -> str:
    title, changes = of_table
    return "\n".join([f"{title}:", "", *(f"- {change}" for change in changes)])


def _page(shown: Shown, drawings: Sequence[str]) -> str:
    study, judged = shown.study, shown.judged
    leads = [f"{study.question} {shown.unfinished}".strip(), *[""] * (len(judged) - 1)]
    body = [
        header("manyface reproduce", study.title),
        *(
            _section(each, text_of(each, judged), drawing, lead=lead, looks=study.looks)
            for each, drawing, lead in zip(judged, drawings, leads, strict=True)
        ),
        html.section("The exact command", html.code(shown.command), _folded(shown)),
        html.section("How to read it", html.listing(shown.about(), classes="notes")),
    ]
    return document(study.title, "".join(body))


def _changes(shown: Shown) -> dict[str, list[str]]:
    """Titles of tables, with their recipe -> what each of their cells changes."""
    files = shown.scale.files
    return {
        f"{each.table.title} ({files[each.table.recipe]})": [
            f"{line.cell.name}: {_changed(line.cell)}" for line in each.lines
        ]
        for each in shown.judged
    }


def _changed(cell: Cell) -> str:
    return f"`{' '.join(cell.changes)}`" if cell.changes else "nothing"


def _folded(shown: Shown) -> str:
    listed = [_ONE_RUN.replace("`", "")]
    for title, changes in _changes(shown).items():
        listed += [f"{title}, {each.replace('`', '')}" for each in changes]
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

"""summary.svg: what the three methods cost and score, in one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

from manyface.report.document import alone, write_page
from manyface.report.panels import Mark, Panel, panels_chart
from manyface.report.svg import in_percent, twentieth_below
from manyface.studies.compared import longer
from manyface.studies.cost import Costs, Figures
from manyface.studies.cost_page import memory_of, seconds_of
from manyface.studies.judging import Line
from manyface.studies.tables import Judged, line_of

# Name in the picture, that of its cost and of the cell of its score.
ROWS = (
    ("full FC", "full FC"),
    ("Partial FC, a tenth", "Partial FC 0.1"),
    ("F2C, pool of a tenth", "F2C 10 %"),
    ("F2C, pool of a hundredth", "F2C 1 %"),
)
# Tables of the scores, each a panel: what leads in short trainings need not in long ones.
SCORES = (("Sample rate", "Size of the pool"), (longer(4),))
PHOTOS = ("Sample rate, LFW", "F2C on LFW")  # where there are some


def write_summary(
    judged: Sequence[Judged], costs: Costs, classes: Sequence[int], folder: Path
) -> Path | None:
    """The picture in `folder`; None as long as a score or a cost of it is missing."""
    found = [_lines(judged, tables) for tables in SCORES]
    size = _largest(costs, classes)
    scores = [_scores(lines) for lines in found if lines is not None]
    if size is None or len(scores) < len(SCORES):
        return None
    at = f"at {size:,} identities"
    panels = [
        Panel("a step of the head", at, _marks(costs, size, seconds_of, "{:.2g} s")),
        Panel("memory of its process", at, _marks(costs, size, memory_of, "{:.2f} GiB")),
        *scores,
    ]
    if (lines := _lines(judged, PHOTOS)) is not None:
        panels.append(_scores(lines, who="LFW's people"))
    drawing = panels_chart([row[0] for row in ROWS], panels, name="What the methods cost and score")
    return write_page(alone(drawing), folder / "summary.svg")


def _largest(costs: Costs, classes: Sequence[int]) -> int | None:
    """The most identities at which all methods of the picture ran."""
    ran = [
        size
        for size in classes
        if all((found := costs.of(row[1], size)) and seconds_of(found) for row in ROWS)
    ]
    return max(ran, default=None)


def _marks(
    costs: Costs, size: int, measure: Callable[[Figures], float | None], said: str
) -> list[Mark | None]:
    found = [measure(costs.of(row[1], size) or {}) for row in ROWS]
    return [None if value is None else Mark(value, said.format(value)) for value in found]


def _lines(judged: Sequence[Judged], tables: Sequence[str]) -> list[Line] | None:
    """Of each row, the line of the first table that has it; None if one is missing."""
    found = []
    for _, cell in ROWS:
        lines = [line for table in tables if (line := line_of(judged, table, cell))]
        if not lines:
            return None
        found.append(lines[0])
    return found


def _scores(lines: Sequence[Line], *, who: str = "") -> Panel:
    marks = [
        Mark(line.mean, f"{100 * line.mean:.1f} %", *(line.ends or (None, None))) for line in lines
    ]
    lowest = min(mark.value if mark.low is None else mark.low for mark in marks)
    floor = twentieth_below(lowest)
    run = lines[0].runs[0]
    people = run["num_identities"]
    showings = run["steps"] * run["batch_size"] / people
    trained = f"{who or f'{people:,} people'} shown {showings:.0f} times"
    return Panel("pairs decided rightly", trained, marks, floor, foot=in_percent(floor))

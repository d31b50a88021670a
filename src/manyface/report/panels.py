"""Several measures of a few methods, side by side: a line for each method, a panel a measure."""

from collections.abc import Sequence
from dataclasses import dataclass

from manyface.report import svg

_MARGIN, _NAMES, _PANEL, _GAP = 14, 196, 186, 18  # pixels
_ROW, _TOP, _FOOT, _SAID = 40, 58, 26, 62


@dataclass(frozen=True)
class Mark:
    """What a panel shows of a method.

    Attributes:
        value: in the panel's unit.
        said: beside it.
        low, high: ends of its interval, if it has one.
    """

    value: float
    said: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Panel:
    """One measure.

    Attributes:
        title, unit: above it.
        marks: of each method; None where there is none.
        floor: where the axis begins. At 0 marks are bars, elsewhere dots: a bar's length would lie.
        foot: what is written there.
    """

    title: str
    unit: str
    marks: Sequence[Mark | None]
    floor: float = 0.0
    foot: str = "0"


def panels_chart(methods: Sequence[str], panels: Sequence[Panel], *, name: str) -> str:
    """The drawing; of each method its name, then its mark in each panel."""
    parts = [
        svg.text(_MARGIN, _height_of(row) + 5, method, "label")
        for row, method in enumerate(methods)
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _NAMES + number * (_PANEL + _GAP))
    bottom, width = _TOP + _ROW * len(methods) + _FOOT, _NAMES + len(panels) * (_PANEL + _GAP)
    said = "; ".join(_in_words(method, row, panels) for row, method in enumerate(methods))
    return svg.drawing("".join(parts), f"{name}: {said}", height=bottom, width=width)


def _height_of(row: int) -> float:
    return _TOP + _ROW * (row + 0.5)


def _panel(panel: Panel, left: float) -> list[str]:
    ends = [end for mark in panel.marks if mark for end in (mark.value, mark.high) if end]
    scale = svg.Scale(panel.floor, max(ends), left, left + _PANEL - _SAID)
    bottom = _TOP + _ROW * len(panel.marks)
    parts = [
        svg.text(left, 18, panel.title, "label"),
        svg.text(left, 38, panel.unit, "tick"),
        svg.path([(left, _TOP), (left, bottom)], "axis"),
        svg.text(left, bottom + 16, panel.foot, "tick centre"),
    ]
    for row, mark in enumerate(panel.marks):
        parts += _mark(mark, scale, _height_of(row), f"s{row % svg.NUM_STYLES}")
    return parts


def _mark(mark: Mark | None, scale: svg.Scale, y: float, style: str) -> list[str]:
    if mark is None:
        return [svg.text(scale.start + 8, y + 5, "\u2013", "tick")]
    end = scale(mark.value)
    said_at = max(end, scale(mark.high) if mark.high is not None else end) + 9
    parts = [svg.text(said_at, y + 5, mark.said, "label")]
    if scale.low == 0:
        return [*parts, svg.path([(scale.start, y), (end, y)], f"bar {style}", mark.said)]
    if mark.low is not None and mark.high is not None:
        parts.append(
            svg.path([(scale(mark.low), y), (scale(mark.high), y)], f"whisker {style}", mark.said)
        )
    return [*parts, svg.dot(end, y, f"dot {style}", mark.said, radius=5)]


def _in_words(method: str, row: int, panels: Sequence[Panel]) -> str:
    found = [(panel.title, panel.marks[row]) for panel in panels]
    return f"{method}: " + ", ".join(f"{title} {mark.said}" for title, mark in found if mark)

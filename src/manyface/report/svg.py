"""The bones of a chart: scales, ticks, frame and paths, as SVG text.

Drawn by hand because a report must open from a disk, without network or scripts, in a few kB.
Colours, type sizes and dashes live in style.css: a chart says what a thing is (`class="s0"` is the
first series), the page says how it looks in light, dark and on a phone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 330
# Room for tick labels at the larger type that phones get (the drawing shrinks, the type does not).
LEFT, RIGHT, TOP, BOTTOM = 66, 22, 12, 54
NUM_STYLES = 8

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, stop], linearly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        clipped = min(max(value, self.low), self.high)
        share = (
            math.log(clipped / self.low) / math.log(self.high / self.low)
            if self.log
            else (clipped - self.low) / (self.high - self.low)
        )
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self, wanted: int = 5) -> list[float]:
        return (
            decades(self.low, self.high) if self.log else round_ticks(self.low, self.high, wanted)
        )


def x_scale(low: float, high: float, *, log: bool = False) -> Scale:
    return Scale(*_apart(low, high), LEFT, WIDTH - RIGHT, log)


def y_scale(low: float, high: float, *, log: bool = False) -> Scale:
    return Scale(*_apart(low, high), HEIGHT - BOTTOM, TOP, log)


def round_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 x 10^k inside [low, high], about `wanted` of them."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [multiple * power for multiple in (1, 2, 5, 10)]
    step = min(steps, key=lambda size: abs(math.log(size / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high]."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**k for k in range(first, last + 1)]


def twentieth_below(share: float) -> float:
    """Where the axis of shares begins that has `share` as its lowest: with a little room."""
    return math.floor(20 * share - 0.2) / 20


def short(value: float) -> str:
    """A tick label: 12k instead of 12000, no needless digits."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def in_percent(value: float) -> str:
    return f"{100 * value:.6g} %"


def frame(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    x_text: Callable[[float], str] = short,
    y_text: Callable[[float], str] = short,
) -> str:
    """Grid lines, tick labels and the name of the x axis."""
    parts = []
    for value in y.ticks():
        parts.append(_line(x.start, y(value), x.stop, y(value), "rule"))
        parts.append(text(x.start - 8, y(value), y_text(value), "tick end middle"))
    for value in x.ticks():
        parts.append(_line(x(value), y.start, x(value), y.start + 5, "axis"))
        parts.append(text(x(value), y.start + 22, x_text(value), "tick centre"))
    parts.append(_line(x.start, y.start, x.stop, y.start, "axis"))
    parts.append(text((x.start + x.stop) / 2, HEIGHT - 6, x_label, "label centre"))
    return "".join(parts)


def drawing(content: str, description: str, *, height: float = HEIGHT, width: float = WIDTH) -> str:
    """The <svg> element; `description` is what a screen reader says."""
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(description)}">{content}</svg>'
    )


def text(x: float, y: float, content: str, classes: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{classes}">{escape(content)}</text>'


def title(content: str) -> str:
    """What a pointer held over the element shows."""
    return f"<title>{escape(content)}</title>"


def path(points: Points, classes: str, hover: str = "", *, closed: bool = False) -> str:
    """A line through pixel positions; steps under half a pixel are left out."""
    if not points:
        return ""
    kept = thinned(points)
    data = "M" + "L".join(f"{px:g} {py:g}" for px, py in kept) + ("Z" if closed else "")
    inside = title(hover) if hover else ""
    return f'<path class="{classes}" d="{data}">{inside}</path>'


def dot(x: float, y: float, classes: str, hover: str, *, radius: float = 4) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{classes}">{title(hover)}</circle>'


def vertical(x: Scale, y: Scale, value: float, classes: str, hover: str) -> str:
    data = f"M{x(value):g} {y.start:g}V{y.stop:g}"
    return f'<path class="{classes}" d="{data}">{title(hover)}</path>'


def thinned(points: Points, distance: float = 0.5) -> list[tuple[float, float]]:
    """`points` without those within `distance` of the last kept one; both ends are kept."""
    kept = [points[0]]
    for point in points[1:-1]:
        if max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) >= distance:
            kept.append(point)
    return [*kept, points[-1]] if len(points) > 1 else kept


def legend(names: Sequence[tuple[str, str]]) -> str:
    """An HTML list of (name, class of the line)."""
    items = "".join(
        f'<li><svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">'
        f'<path class="{classes}" d="M1 5H29"/></svg>{escape(name)}</li>'
        for name, classes in names
    )
    return f'<ul class="legend">{items}</ul>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<path class="{classes}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


def _apart(low: float, high: float) -> tuple[float, float]:
    """A range of no width is given one, so that a single value can be drawn."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room

"""The charts of the report: curves over steps, ROC, histograms of similarity, intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from manyface.evaluate import result
from manyface.evaluate.metrics import auc, roc_points, smallest_far
from manyface.report import numbers, svg
from manyface.report.runs import PairScores

_BINS = 48
_ROW_HEIGHT = 48
_MAX_BANDS = 3  # more of them cover each other


@dataclass(frozen=True)
class Curve:
    """A line over training steps. `low` and `high` bound the interval of each value that has one:
    a band where all have, bars where some have (a run may give intervals at its end only)."""

    name: str
    style: int
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


# Name, style, points.
Rates = tuple[str, int, result.Curve]


def smoothing_window(count: int) -> int:
    """Points averaged in the bold line of `count` logged ones: a twentieth of them, and odd."""
    return max(1, count // 20) // 2 * 2 + 1


def curves_chart(
    curves: Sequence[Curve],
    *,
    name: str,
    smooth: bool = False,
    from_zero: bool = False,
    shares: bool = False,
    levels: Sequence[tuple[str, float]] = (),
) -> str:
    """Lines over steps.

    Args:
        smooth: draw the values pale and their running mean bold.
        from_zero: start the y axis at 0.
        shares: values are shares, shown in percent, with a dot at each.
        levels: (name, value) of horizontal lines to compare with.
    """
    every = [v for c in curves for v in (*c.values, *c.low, *c.high) if v is not None]
    every += [value for _, value in levels]
    steps = [step for curve in curves for step in curve.steps]
    room = 0.06 * (max(every) - min(every))
    low = 0.0 if from_zero else min(every) - room
    x = svg.x_scale(0, max(steps))
    y = svg.y_scale(low, min(1.0, max(every) + room) if shares else max(every) + room)
    in_words: Callable[[float], str] = svg.in_percent if shares else svg.short
    parts = [svg.frame(x, y, x_label="step", y_text=in_words)]
    parts += [_level(x, y, *level) for level in levels]
    if len(curves) <= _MAX_BANDS:
        parts += [part for curve in curves for part in _intervals(curve, x, y)]
    for curve in curves:
        parts += _curve(curve, x, y, smooth=smooth, dots=shares)
    ends = "; ".join(f"{c.name} ends at {in_words(c.values[-1])}" for c in curves)
    return svg.drawing("".join(parts), f"{name} over training steps: {ends}")


@dataclass(frozen=True)
class Growth:
    """A line over sizes, (size, value) each; `marked`: with a dot at each, else dashed and bare."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]
    marked: bool = True


def growth_chart(lines: Sequence[Growth], *, name: str, x_label: str) -> str:
    """Lines over sizes, both axes logarithmic."""
    every = [point for line in lines for point in line.points]
    (low_x, high_x), (low, high) = ((min(v), max(v)) for v in zip(*every, strict=True))
    x = svg.x_scale(low_x, high_x, log=True)
    floor, ceiling = (10.0 ** f(math.log10(v)) for f, v in ((math.floor, low), (math.ceil, high)))
    y = svg.y_scale(floor, ceiling, log=True)
    parts = [svg.frame(x, y, x_label=x_label)]
    for line in lines:
        style = f"s{line.style % svg.NUM_STYLES}"
        at = [(x(size), y(value)) for size, value in line.points]
        pale = "" if line.marked else " pale"
        parts.append(svg.path(at, f"line{pale} {style}", line.name))
        for place, (size, value) in zip(at if line.marked else [], line.points, strict=False):
            hover = f"{line.name} at {size:,.0f}: {value:.4g}"
            parts.append(svg.dot(*place, f"dot {style}", hover))
    ends = "; ".join(f"{line.name} {line.points[-1][1]:.3g}" for line in lines)
    return svg.drawing("".join(parts), f"{name} over {x_label}: at the end {ends}")


def _curve(curve: Curve, x: svg.Scale, y: svg.Scale, *, smooth: bool, dots: bool) -> list[str]:
    style = f"line s{curve.style % svg.NUM_STYLES}"
    hover = f"{curve.name}: {curve.values[-1]:.4g} at step {curve.steps[-1]:,.0f}"
    points = [(x(s), y(v)) for s, v in zip(curve.steps, curve.values, strict=True)]
    if dots:
        marks = [
            svg.dot(*point, f"dot s{curve.style % svg.NUM_STYLES}",
                    f"{curve.name}, step {step:,.0f}: {numbers.percent(value)}")
            for point, step, value in zip(points, curve.steps, curve.values, strict=True)
        ]  # fmt: skip
        return [svg.path(points, style, hover), *marks]
    if not smooth:
        return [svg.path(points, style, hover)]
    means = running_mean(curve.values, smoothing_window(len(points)))
    bold = [(x(s), y(v)) for s, v in zip(curve.steps, means, strict=True)]
    return [svg.path(points, f"{style} pale"), svg.path(bold, style, hover)]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over `window` values; the window shrinks evenly towards both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    count, half = len(values), window // 2
    position = np.arange(count)
    reach = np.minimum(half, np.minimum(position, count - 1 - position))
    means = (sums[position + reach + 1] - sums[position - reach]) / (2 * reach + 1)
    return [float(mean) for mean in means]


def _intervals(curve: Curve, x: svg.Scale, y: svg.Scale) -> list[str]:
    style = f"s{curve.style % svg.NUM_STYLES}"
    known = [
        (x(step), y(low), y(high))
        for step, low, high in zip(curve.steps, curve.low, curve.high, strict=False)
        if low is not None and high is not None
    ]
    if len(known) == len(curve.steps) > 1:
        around = [(px, top) for px, _, top in known] + [(px, foot) for px, foot, _ in known[::-1]]
        return [svg.path(around, f"band {style}", closed=True)]
    return [svg.path([(px, foot), (px, top)], f"whisker {style}") for px, foot, top in known]


def _level(x: svg.Scale, y: svg.Scale, name: str, value: float) -> str:
    points = [(x.start, y(value)), (x.stop, y(value))]
    label = svg.text(x.stop, y(value) - 6, name, "tick end")
    return svg.path(points, "line level", f"{name}: {numbers.percent(value)}") + label


def roc_chart(scored: Sequence[tuple[str, int, PairScores]]) -> str:
    """TAR over FAR, the latter on a logarithmic axis that ends at the smallest FAR that the pairs
    can show (one false accept). Steps are drawn as steps: nothing is interpolated."""
    rocs = [roc_points(pairs.similarity, pairs.same) for _, _, pairs in scored]
    smallest = max(smallest_far(pairs.same) for _, _, pairs in scored)
    at_left = [float(roc.tar[roc.far <= smallest * (1 + 1e-9)].max()) for roc in rocs]
    x = svg.x_scale(smallest, 1.0, log=True)
    y = svg.y_scale(max(0.0, math.floor(10 * min(at_left) - 1e-9) / 10), 1.0)
    parts = [
        svg.frame(x, y, x_label="false accept rate", x_text=svg.in_percent, y_text=svg.in_percent)
    ]
    for (name, style, pairs), roc, left in zip(scored, rocs, at_left, strict=True):
        keep = roc.far > smallest * (1 + 1e-9)
        points = [(x(smallest), y(left))]
        for far, tar in zip(roc.far[keep], roc.tar[keep], strict=True):
            points += [(x(float(far)), points[-1][1]), (x(float(far)), y(float(tar)))]
        hover = f"{name}: AUC {auc(pairs.similarity, pairs.same):.4f}"
        parts.append(svg.path(points, f"line s{style % svg.NUM_STYLES}", hover))
    words = "; ".join(
        f"{name} accepts {numbers.percent(left)} of same pairs at a false accept rate of "
        f"{numbers.percent(smallest, 2)}"
        for (name, _, _), left in zip(scored, at_left, strict=True)
    )
    return svg.drawing("".join(parts), f"ROC: {words}")


def rates_chart(
    curves: Sequence[Rates], *, det: bool = False, x_label: str = "false accept rate"
) -> str:
    """TAR over FAR in steps, the FAR on a logarithmic axis; as DET the share of same pairs that are
    rejected, on a logarithmic axis too. Ends at the smallest FAR of a curve that is not 0."""
    shown = [(name, style, curve) for name, style, curve in curves if (curve.far > 0).any()]
    smallest = min(float(curve.far[curve.far > 0].min()) for _, _, curve in shown)
    missed = [1 - curve.tar[curve.far >= smallest] for _, _, curve in shown]
    x = svg.x_scale(smallest, 1.0, log=True)
    if det:
        least = min((float(each[each > 0].min()) for each in missed if (each > 0).any()), default=1)
        y = svg.y_scale(10 ** math.floor(math.log10(least) - 1e-9), 1.0, log=True)
    else:
        y = svg.y_scale(max(0.0, math.floor(10 * (1 - max(map(np.max, missed))) - 1e-9) / 10), 1.0)
    parts = [svg.frame(x, y, x_label=x_label, x_text=svg.in_percent, y_text=svg.in_percent)]
    for (name, style, curve), misses in zip(shown, missed, strict=True):
        points: list[tuple[float, float]] = []
        for far, miss in zip(curve.far[curve.far >= smallest], misses, strict=True):
            place = (x(float(far)), y(max(float(miss), y.low) if det else 1 - float(miss)))
            points += [(place[0], points[-1][1]), place] if points else [place]
        parts.append(svg.path(points, f"line s{style % svg.NUM_STYLES}", name))
    what = "DET: rejected same pairs" if det else "ROC: accepted same pairs"
    return svg.drawing("".join(parts), f"{what} over false accepts of {len(shown)} curves")


def histogram_chart(pairs: PairScores, span: tuple[float, float]) -> str:
    """Share of same and of different pairs by similarity over `span`, with the threshold."""
    edges = np.linspace(*span, _BINS + 1)
    shares = {}
    for kind in (True, False):
        counts = np.histogram(pairs.similarity[pairs.same == kind], edges)[0]  # [bins]
        shares[kind] = counts / max(1, counts.sum())
    top = max(float(share.max()) for share in shares.values())
    x, y = svg.x_scale(*span), svg.y_scale(0, 1.05 * top)
    parts = [svg.frame(x, y, x_label="cosine similarity", y_text=svg.in_percent)]
    for kind, style, name in ((False, "different", "two people"), (True, "same", "one person")):
        outline = [(x(span[0]), y(0))]
        for share, left, right in zip(shares[kind], edges[:-1], edges[1:], strict=True):
            outline += [(x(float(left)), y(float(share))), (x(float(right)), y(float(share)))]
        outline.append((x(span[1]), y(0)))
        mean = float(pairs.similarity[pairs.same == kind].mean())
        hover = f"pairs of {name}: mean similarity {mean:.2f}"
        parts.append(svg.path(outline, f"area {style}", hover, closed=True))
    threshold = float(np.mean(pairs.folds.thresholds))
    parts.append(svg.vertical(x, y, threshold, "line threshold", f"threshold {threshold:.3f}"))
    words = f"Similarity of pairs; the mean threshold is {threshold:.2f}"
    return svg.drawing("".join(parts), words)


def similarity_span(scored: Sequence[PairScores]) -> tuple[float, float]:
    """One range of similarities for all histograms of a page, rounded outwards to tenths."""
    low = min(float(pairs.similarity.min()) for pairs in scored)
    high = max(float(pairs.similarity.max()) for pairs in scored)
    return math.floor(10 * low) / 10, min(1.0, math.ceil(10 * high) / 10)


@dataclass(frozen=True)
class Estimate:
    """A value and its interval, one line of `intervals_chart`. Style None: a baseline. `said` of
    it by the mouse, in place of the interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    style: int | None
    said: str = ""


def intervals_chart(
    estimates: Sequence[Estimate], *, name: str, against: float | None = None
) -> str:
    """A dot and a whisker for each method, its name above them: readable at any width. `against`
    is a value that all are compared with, an upright line."""
    ends = [e for m in estimates for e in (m.low, m.value, m.high) if e is not None]
    low, high = svg.twentieth_below(min(ends)), min(1.0, math.ceil(20 * max(ends)) / 20)
    x = svg.Scale(low, max(high, low + 0.05), 24, svg.WIDTH - 30)
    bottom = svg.TOP + _ROW_HEIGHT * len(estimates)
    parts = []
    for value in x.ticks():
        parts.append(svg.path([(x(value), svg.TOP), (x(value), bottom)], "rule"))
        parts.append(svg.text(x(value), bottom + 22, svg.in_percent(value), "tick centre"))
    if against is not None:
        parts.append(svg.path([(x(against), svg.TOP), (x(against), bottom)], "line level"))
    for row, method in enumerate(estimates):
        top = svg.TOP + _ROW_HEIGHT * row
        style = "none" if method.style is None else f"s{method.style % svg.NUM_STYLES}"
        said = f"{method.name}: {numbers.percent(method.value)}"
        parts.append(svg.text(x.start, top + 18, method.name, "label"))
        if method.low is not None and method.high is not None:
            ends_at = [(x(method.low), top + 34), (x(method.high), top + 34)]
            interval = f"95 % interval {numbers.interval(method.low, method.high)} %"
            said += f", {method.said or interval}"
            parts.append(svg.path(ends_at, f"whisker {style}", said))
        parts.append(svg.dot(x(method.value), top + 34, f"dot {style}", said, radius=5))
    words = "; ".join(f"{m.name} {numbers.percent(m.value)}" for m in estimates)
    return svg.drawing("".join(parts), f"{name}: {words}", height=bottom + 32)

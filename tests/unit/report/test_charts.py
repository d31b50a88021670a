"""Scales, ticks, numbers and the colours of the charts."""

import math
import re
from importlib.resources import files

import numpy as np
import pytest

from manyface.report import charts, numbers, svg


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1500, [0, 200, 400, 600, 800, 1000, 1200, 1400]),
        (0.87, 0.93, [0.87, 0.88, 0.89, 0.9, 0.91, 0.92, 0.93]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_round_ticks(low: float, high: float, expected: list[float]) -> None:
    assert svg.round_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("exponent", range(-8, 9))
@pytest.mark.parametrize("factor", [1.0, 1.7, 3.3, 7.9])
def test_ticks_are_inside_and_few(exponent: int, factor: float) -> None:
    low, high = factor * 10.0**exponent, 2.3 * factor * 10.0**exponent
    ticks = svg.round_ticks(low, high)
    assert 3 <= len(ticks) <= 10
    assert low * (1 - 1e-9) <= ticks[0] < ticks[-1] <= high * (1 + 1e-9)


def test_decades_and_log_scale() -> None:
    assert svg.decades(1 / 3000, 1) == pytest.approx([1e-3, 1e-2, 1e-1, 1])
    scale = svg.Scale(1e-4, 1, 0, 400, log=True)
    assert [scale(10.0**-k) for k in range(5)] == [400, 300, 200, 100, 0]
    assert scale(0.0) == 0


def test_a_single_value_can_be_drawn() -> None:
    for value in (0.0, 5.0, -2.0):
        scale = svg.y_scale(value, value)
        assert math.isfinite(scale(value))
        assert scale.ticks()


def test_thinning_keeps_ends_and_corners() -> None:
    points = [(k / 100, 0.0) for k in range(1000)] + [(10.0, 50.0), (10.0, 50.0)]
    kept = svg.thinned(points)
    assert len(kept) < 30
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_running_mean_shrinks_evenly_towards_the_ends() -> None:
    values = [1.0, 2.0, 6.0, 4.0, 5.0]
    assert charts.running_mean(values, 3) == pytest.approx([1, 3, 4, 5, 5])
    assert charts.running_mean(values, 1) == pytest.approx(values)
    assert charts.smoothing_window(10) == 1
    assert charts.smoothing_window(150) % 2 == 1


@pytest.mark.parametrize(
    "low, bands, bars", [((), 0, 0), ((0.4, 0.5), 1, 0), ((None, 0.5), 0, 1), ((None, None), 0, 0)]
)
def test_intervals_are_a_band_or_bars(low: tuple, bands: int, bars: int) -> None:
    curve = charts.Curve("run", 0, [1, 2], [0.6, 0.7], low, tuple(v and v + 0.3 for v in low))
    drawn = charts.curves_chart([curve], name="Accuracy", shares=True)
    assert (drawn.count("band s0"), drawn.count("whisker s0")) == (bands, bars)


@pytest.mark.parametrize(
    "found, expected",
    [
        (numbers.size(998_000_000), "998 MB"),
        (numbers.size(1_234_567_890), "1.2 GB"),
        (numbers.size(12), "12 bytes"),
        (numbers.size(None), "–"),
        (numbers.duration(5.25), "5.2 s"),
        (numbers.duration(187.3), "3 min 7 s"),
        (numbers.duration(3 * 3600 + 59.6 * 60), "3 h 59 min"),
        (numbers.percent(0.94321), "94.3 %"),
        (numbers.far_name("0.001"), "0.1\u00a0%"),
        (numbers.far_name("1e-05"), "0.001\u00a0%"),
        (svg.short(12000), "12k"),
        (svg.short(2.5e6), "2.5M"),
        (svg.in_percent(0.005), "0.5 %"),
    ],
)
def test_numbers_read_well(found: str, expected: str) -> None:
    assert found == expected


def _colours(block: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6})", block)
    return {name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, code in found}


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    light, dark = sorted([_luminance(one), _luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(mode: int) -> None:
    """WCAG 2.2: 4.5 for text, 3 for the parts of a chart; light and dark mode."""
    css = files("manyface.report").joinpath("style.css").read_text()
    colours = _colours(css.split(":root")[1 + mode])
    for text in ("ink", "quiet"):
        assert _contrast(colours[text], colours["card"]) >= 4.5
        assert _contrast(colours[text], colours["page"]) >= 4.5
    assert _contrast(colours["warn-ink"], colours["warn"]) >= 4.5
    for line in [*(f"s{i}" for i in range(svg.NUM_STYLES)), "none", "same", "different"]:
        assert _contrast(colours[line], colours["card"]) >= 3, line

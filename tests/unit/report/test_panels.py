"""Measures side by side: bars from zero, dots where an axis begins elsewhere."""

import re

from manyface.report.panels import Mark, Panel, panels_chart


def drawn(panel: Panel) -> str:
    return panels_chart(["one", "<two>"], [panel], name="Cost")


def test_bars_are_as_long_as_their_values() -> None:
    text = drawn(Panel("time", "s", [Mark(4.0, "4 s"), Mark(1.0, "1 s")]))
    bars = re.findall(r'class="bar s\d" d="M(\S+) \S+?L(\S+) ', text)
    first, second = (float(end) - float(start) for start, end in bars)
    assert abs(first - 4 * second) < 0.3  # places are rounded to a tenth
    assert "&lt;two&gt;" in text
    assert 'aria-label="Cost: one: time 4 s; &lt;two&gt;: time 1 s"' in text


def test_dots_with_whiskers_where_the_axis_begins_elsewhere() -> None:
    marks = [Mark(0.9, "90 %", 0.88, 0.92), Mark(0.85, "85 %")]
    text = drawn(Panel("accuracy", "", marks, floor=0.8, foot="80 %"))
    assert (text.count("<circle"), text.count("whisker"), text.count('"bar')) == (2, 1, 0)
    assert "80 %</text>" in text


def test_what_is_not_known_is_a_dash() -> None:
    text = drawn(Panel("time", "s", [Mark(4.0, "4 s"), None]))
    assert "\u2013</text>" in text
    assert text.count('class="bar') == 1

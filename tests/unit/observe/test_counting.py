"""Progress over records: silent where nothing happens, lines in a file, a bar on a terminal."""

import io

import pytest

from manyface.observe.counting import Counting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def walk(stream, *, step: float, counts, total) -> Counting:
    now = [0.0]
    counting = Counting("checking", stream=stream, clock=lambda: now[0])
    with counting:
        for done in counts:
            counting(done, total)
            now[0] += step
    return counting


def test_says_nothing_of_what_takes_no_time():
    stream = io.StringIO()
    walk(stream, step=0.1, counts=range(20), total=20)
    with Counting("indexing", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_a_line_every_ten_seconds_with_rate_and_time_left():
    stream = io.StringIO()
    walk(stream, step=5.0, counts=range(0, 600, 100), total=600)
    assert stream.getvalue().splitlines() == [
        "checking: 200/600 records  20/s  20s left",
        "checking: 400/600 records  20/s  10s left",
    ]


def test_the_rate_is_that_of_the_last_half_minute():
    slow_after_fast = [*range(0, 10_000, 1000), *range(10_000, 10_100, 10)]
    counting = walk(io.StringIO(), step=10.0, counts=slow_after_fast, total=None)
    assert counting.rate == 1.0


@pytest.mark.parametrize("columns", ["40", "120"])
def test_a_bar_on_a_terminal_of_any_width(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    walk(stream, step=1.0, counts=[0, 1000, 2000], total=4000)
    assert "checking" in stream.getvalue()
    assert "2000/4000" in stream.getvalue()

import errno
import io
from dataclasses import replace

import pytest
from rich.console import Console

from manyface.observe.progress import (
    BarProgress,
    LineProgress,
    SilentProgress,
    Snapshot,
    describe,
    format_duration,
    make_progress,
)

SNAPSHOT = Snapshot(step=412, loss=12.3456, images_per_second=2345.6, seconds_left=754.0)


@pytest.mark.parametrize("width", [20, 32, 40, 59, 60, 80, 100, 200])
def test_the_bar_fits_the_terminal_and_shows_the_step(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with BarProgress("[demo] full fc", num_steps=1000, console=console) as progress:
        progress.update(SNAPSHOT)
        progress.message("evaluation [1/2]")
    text = console.file.getvalue()
    last = [line for line in text.replace("\r", "\n").splitlines() if "412" in line][-1]
    assert "412/1000" in last
    assert "evaluation [1/2]" in text
    if width >= 40:
        assert "12.346" in last
        assert "12m34s" in last


def test_without_a_terminal_there_is_a_line_every_few_seconds():
    now = [0.0]
    stream = io.StringIO()
    progress = LineProgress(
        "full", num_steps=10, stream=stream, interval_seconds=10, clock=lambda: now[0]
    )
    with progress:
        for step in range(1, 11):
            now[0] += 4.0
            progress.update(
                Snapshot(step=step, loss=1.0, images_per_second=5.0, seconds_left=40 - now[0])
            )
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["3/10", "6/10", "9/10", "10/10"]
    assert lines[0] == "full: step 3/10  loss 1.000  5 images/s  28s left"
    assert "\r" not in stream.getvalue()


def test_the_stream_decides():
    stream = io.StringIO()
    assert isinstance(make_progress("run", num_steps=1, stream=stream), LineProgress)
    stream.isatty = lambda: True
    assert isinstance(make_progress("run", num_steps=1, stream=stream), BarProgress)


def test_silence_is_silent(capsys):
    with SilentProgress() as progress:
        progress.update(SNAPSHOT)
        progress.message("nothing")
    assert capsys.readouterr() == ("", "")


def test_before_the_first_loss_only_what_is_known_is_said():
    known = Snapshot(step=1, loss=None, images_per_second=10.0, seconds_left=None)
    assert describe(known) == "10 images/s"
    assert describe(known, short=True) == "10/s"


@pytest.mark.parametrize(
    "seconds, text", [(-3, "0s"), (59.4, "59s"), (60, "1m00s"), (3599, "59m59s"), (7621, "2h07m")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize("width", [40, 100])
def test_the_bar_says_what_goes_on_beside_the_steps(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with BarProgress("run", num_steps=412, console=console) as progress:
        progress.update(replace(SNAPSHOT, seconds_left=None))
        progress.activity("evaluating lfw")
        progress._bar.refresh()
        progress.activity(None)
    lines = console.file.getvalue().replace("\r", "\n").splitlines()
    shown = [line for line in lines if "412/412" in line]
    assert any("412/412 evaluating lfw" in line for line in shown)
    assert "evaluating" not in shown[-1]
    assert "12.346" in shown[-1]


def test_without_a_terminal_an_activity_is_a_line():
    stream = io.StringIO()
    progress = LineProgress("run", num_steps=3, stream=stream)
    progress.activity("evaluating lfw")
    progress.activity(None)
    assert stream.getvalue() == "run: evaluating lfw\n"


def test_an_alert_passes_by_every_buffer(tmp_path):
    """As it must in a signal handler, which may come in the middle of a print."""
    with (tmp_path / "log").open("w") as stream:
        stream.write("half a li")
        LineProgress("run", num_steps=3, stream=stream).alert("stopping")
        assert (tmp_path / "log").read_text() == "run: stopping\n"
        console = Console(file=stream, force_terminal=True)
        BarProgress("run", num_steps=3, console=console).alert("again")
        assert (tmp_path / "log").read_bytes().endswith(b"\r\x1b[2Kagain\n")
    LineProgress("run", num_steps=3, stream=io.StringIO()).alert("no file: nothing to write to")


def test_a_display_that_is_gone_does_not_end_a_run():
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    LineProgress("run", num_steps=3, stream=Gone()).message("x")
    console = Console(file=Gone(), force_terminal=True, width=80)
    progress = BarProgress("run", num_steps=3, console=console)
    progress.message("x")
    progress.__exit__(None, None, None)

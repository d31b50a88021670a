"""What a person sees while a run trains: a bar on a terminal, plain lines anywhere else.

The display must survive narrow terminals, so its columns are chosen by width, and log files, where
a bar would be thousands of carriage returns: there one line is printed every few seconds.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as RichBar
from rich.table import Column
from rich.text import Text


@dataclass(frozen=True)
class Snapshot:
    """What a display may show after a step."""

    step: int
    loss: float | None
    images_per_second: float
    seconds_left: float | None


class Progress(Protocol):
    """A display of one training run; used as a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def update(self, snapshot: Snapshot) -> None: ...
    def message(self, text: str) -> None: ...

    def activity(self, text: str | None, *, more: bool = False) -> None:
        """Show what goes on beside the steps; None: it is over.

        `more`: this is news of the activity before, as often as they come.
        """

    def alert(self, text: str) -> None:
        """Show a message from within a signal handler, which may come in the middle of a print."""


def make_progress(
    name: str,
    *,
    num_steps: int,
    stream: TextIO | None = None,
    interval_seconds: float = 10.0,
) -> Progress:
    """A bar if `stream` (default: stderr) is a terminal, else a line every `interval_seconds`."""
    stream = stream or sys.stderr
    if stream.isatty():
        return BarProgress(name, num_steps=num_steps, console=Console(file=stream))
    return LineProgress(name, num_steps=num_steps, stream=stream, interval_seconds=interval_seconds)


class SilentProgress:
    """Shows nothing; for tests and for callers with their own display."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def update(self, snapshot: Snapshot) -> None:
        return None

    def message(self, text: str) -> None:
        return None

    def activity(self, text: str | None, *, more: bool = False) -> None:
        return None

    def alert(self, text: str) -> None:
        return None


class LineProgress(SilentProgress):
    """One plain line every `interval_seconds`, for log files and pipes."""

    def __init__(
        self,
        name: str,
        *,
        num_steps: int,
        stream: TextIO,
        interval_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._num_steps, self._stream = name, num_steps, stream
        self._interval_seconds, self._clock = interval_seconds, clock
        self._last = clock()

    def update(self, snapshot: Snapshot) -> None:
        now = self._clock()
        if now - self._last >= self._interval_seconds or snapshot.step == self._num_steps:
            self._last = now
            self.message(f"step {snapshot.step}/{self._num_steps}  {describe(snapshot)}")

    def message(self, text: str) -> None:
        with suppress(OSError):  # as below: what cannot be shown ends no run
            print(f"{self._name}: {text}", file=self._stream, flush=True)

    def activity(self, text: str | None, *, more: bool = False) -> None:
        now = self._clock()
        if text is not None and not (more and now - self._last < self._interval_seconds):
            self._last = now
            self.message(text)

    def alert(self, text: str) -> None:
        _write_at_once(self._stream, f"{self._name}: {text}\n")


class BarProgress:
    """A rich progress bar; messages are printed above it."""

    def __init__(self, name: str, *, num_steps: int, console: Console) -> None:
        self._bar = RichBar(*_columns(console.width), console=console, refresh_per_second=4)
        self._task = self._bar.add_task(name, total=num_steps, status="")
        self._status = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # the terminal may have been closed
            self._bar.stop()

    def update(self, snapshot: Snapshot) -> None:
        self._status = describe(snapshot, short=self._bar.console.width < _WIDE)
        self._bar.update(self._task, completed=snapshot.step, status=self._status)

    def message(self, text: str) -> None:
        with suppress(OSError):
            # markup off: a path like [old]/run is text, not a style.
            self._bar.console.print(text, markup=False, highlight=False)

    def activity(self, text: str | None, *, more: bool = False) -> None:
        self._bar.update(self._task, status=self._status if text is None else text)

    def alert(self, text: str) -> None:
        # Over the bar, which is drawn again below it.
        _write_at_once(self._bar.console.file, f"\r\x1b[2K{text}\n")


def _write_at_once(stream: IO[str], text: str) -> None:
    """Past the buffers, one of which may just be in use."""
    with suppress(OSError):  # a stream without a file, too
        os.write(stream.fileno(), text.encode())


_WIDE, _MEDIUM = 90, 60


class _StatusColumn(ProgressColumn):
    """Step and status in one line; what does not fit is cut at the end, never wrapped."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)} {task.fields['status']}")


def _columns(width: int) -> list[ProgressColumn]:
    """Columns that fit: name and bar only where there is room for them."""
    if width >= _WIDE:
        name = TextColumn("{task.description}", markup=False)
        return [name, BarColumn(bar_width=None), _StatusColumn()]
    if width >= _MEDIUM:
        return [BarColumn(bar_width=10), _StatusColumn()]
    return [_StatusColumn()]


def describe(snapshot: Snapshot, *, short: bool = False) -> str:
    """Loss, images per second and time left, in words (or in as few letters as can be read)."""
    loss = "" if snapshot.loss is None else f"{snapshot.loss:.3f}"
    speed = f"{snapshot.images_per_second:.0f}"
    left = "" if snapshot.seconds_left is None else format_duration(snapshot.seconds_left)
    if short:
        return " ".join(part for part in (loss, f"{speed}/s", left) if part)
    parts = [loss and f"loss {loss}", f"{speed} images/s", left and f"{left} left"]
    return "  ".join(part for part in parts if part)


def format_duration(seconds: float) -> str:
    """Seconds as 45s, 3m05s or 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"

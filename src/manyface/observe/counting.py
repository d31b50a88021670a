"""How far a long walk through records is: a rate and the time left.

On a terminal a bar, elsewhere a line every few seconds, as progress.py does for training. Nothing
is shown until the first news comes, so work that turns out to be done already (an index that is
there) stays silent. The rate is that of the last half minute: a disk that becomes slow shows.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as RichBar
from rich.table import Column

from manyface.observe.progress import format_duration

_WINDOW_SECONDS = 30.0
_NARROW = 60


class Counting:
    """A display of one walk, a context manager; call it with the records done and their total.

    Args:
        name: what is done, such as "checking train.rec".
        unit: of what is counted.
        stream: default stderr.
        interval_seconds: between two lines where there is no terminal.
    """

    def __init__(
        self,
        name: str,
        *,
        unit: str = "records",
        stream: TextIO | None = None,
        interval_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._unit, self._clock = name, unit, clock
        self._stream = stream or sys.stderr
        self._interval_seconds = interval_seconds
        self._seen: deque[tuple[float, int]] = deque()
        self._last_line = clock()
        self._bar: RichBar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal may have been closed
                self._bar.stop()

    def __call__(self, done: int, total: int | None = None) -> None:
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_SECONDS:
            self._seen.popleft()
        if self._stream.isatty():
            self._draw(done, total)
        elif now - self._last_line >= self._interval_seconds:
            self._last_line = now
            with suppress(OSError):  # what cannot be shown ends no work
                print(f"{self._name}: {self._status(done, total)}", file=self._stream, flush=True)

    @property
    def rate(self) -> float:
        """Records per second; 0 before it is known."""
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def _status(self, done: int, total: int | None) -> str:
        of = "" if total is None else f"/{total}"
        parts = [f"{done}{of} {self._unit}"]
        if self.rate > 0:
            parts.append(f"{self.rate:.0f}/s")
            if total is not None:
                parts.append(f"{format_duration((total - done) / self.rate)} left")
        return "  ".join(parts)

    def _draw(self, done: int, total: int | None) -> None:
        if self._bar is None:
            console = Console(file=self._stream)
            columns: list[ProgressColumn | str] = [TextColumn("{task.description}", markup=False)]
            if console.width >= _NARROW:
                columns.append(BarColumn(bar_width=20))
            cut = Column(no_wrap=True, overflow="ellipsis")
            columns.append(TextColumn("{task.fields[status]}", markup=False, table_column=cut))
            self._bar = RichBar(*columns, console=console, refresh_per_second=4, transient=True)
            self._task = self._bar.add_task(self._name, total=total, status="")
            self._bar.start()
        status = self._status(done, total)
        self._bar.update(self._task, completed=done, total=total, status=status)

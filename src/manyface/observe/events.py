"""The event log of a run: one JSON object a line, only ever appended to (docs/formats/run.md).

A process may die in the middle of a line, and a resumed run goes back to its checkpoint and
repeats the steps after it. Readers should know of neither: the writer cuts a torn last line off
before it appends, and `read_events` leaves out what a later resume has superseded.
"""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from manyface.base.errors import WriteError

log = logging.getLogger(__name__)

Event = dict[str, Any]


class EventLog:
    """Appends events to `path`; each line is handed to the operating system at once.

    Without a path nothing is written, as on ranks other than the first.
    `seconds_before`: seconds the run has already lasted in earlier processes, so that the field
    `seconds` goes on instead of starting again.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        seconds_before: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(os.devnull if path is None else path)
        self._clock = clock
        self._lock = threading.Lock()  # loader threads write warnings
        self._start = clock() - seconds_before
        try:
            if path is not None:
                cut_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise WriteError(self.path, error) from error

    @property
    def seconds(self) -> float:
        """Seconds since the run began, earlier processes included."""
        return self._clock() - self._start

    def write(self, kind: str, **fields: Any) -> Event:
        """Append one event and return it; NaN and inf, which JSON cannot say, become null, and
        bytes of names that are no UTF-8 are spelt out."""
        event = {"kind": kind, "seconds": round(self.seconds, 3), **_sayable(fields)}
        try:
            with self._lock:
                self._file.write(json.dumps(event, allow_nan=False, ensure_ascii=False) + "\n")
                self._file.flush()
        except OSError as error:
            raise WriteError(self.path, error) from error
        return event

    def sync(self) -> None:
        """Force the log to the disk, so that no checkpoint outlives the events before it."""
        try:
            if self.path != Path(os.devnull):
                os.fsync(self._file.fileno())
        except OSError as error:
            raise WriteError(self.path, error) from error

    def close(self) -> None:
        try:
            self._file.close()  # which tries once more to write what could not be written
        except OSError as error:
            raise WriteError(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_events(
    path: Path | str,
    *,
    superseded: bool = False,
    warn: Callable[[str], None] = log.warning,
) -> list[Event]:
    """The events of a run in order, without a torn last line; `warn` is told of damaged ones.

    `superseded=True` also gives the events that a resumed run has gone back behind.
    """
    lines = Path(path).read_bytes().split(b"\n")
    # What follows the last newline is empty, or a line whose writer died in the middle of it.
    found = {number: _parse(line) for number, line in enumerate(lines[:-1], 1) if line}
    if damaged := [number for number, event in found.items() if event is None]:
        first = f"{path}, line {damaged[0]}: {lines[damaged[0] - 1][:40]!r} is no event"
        warn(f"{first}; {len(damaged)} damaged lines of {len(lines) - 1} are left out")
    events = [event for event in found.values() if event is not None]
    return events if superseded else _current(events)


def cut_torn_line(path: Path) -> None:
    """Remove what follows the last newline of `path`; a missing file is fine."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _current(events: list[Event]) -> list[Event]:
    """Leave out the events after step s that come before a later start from step s."""
    kept: list[Event] = []
    for event in events:
        if event["kind"] == "start":
            kept = [old for old in kept if old.get("step", 0) <= event.get("step", 0)]
        kept.append(event)
    return kept


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def _sayable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _sayable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    return value

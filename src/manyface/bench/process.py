"""A measurement in a fresh process, so that neither memory nor warmth of another one is in it."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

from manyface.base.errors import ManyfaceError
from manyface.bench.shape import Shape


class MeasurementError(ManyfaceError):
    """A method that raised, or whose process died."""


def in_own_process(name: str, shape: Shape, *, report: Callable[[str], None]) -> dict[str, Any]:
    """What `python -m manyface.bench` finds for a method.

    Raises:
        MeasurementError: it has found nothing, and why.
    """
    command = [sys.executable, "-m", "manyface.bench", name, json.dumps(shape.as_dict())]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(  # noqa: S603  ourselves
            command, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as process,
    ):
        try:
            found = _listen(process.stdout or (), report)
            code = process.wait()
        finally:
            process.kill()  # where we were interrupted; it does nothing to one that has ended
        complaints.seek(0)
        if found is None:
            raise MeasurementError(_why(code, complaints.read()))
        return found


def _listen(lines: Iterable[str], report: Callable[[str], None]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None
    for line in lines:
        if not line.startswith("{"):  # a library with something to say
            continue
        said = json.loads(line)
        if "doing" in said:
            report(said["doing"])
        if "error" in said:
            raise MeasurementError(said["error"])
        found = said.get("found", found)
    return found


def _why(code: int, complaints: str) -> str:
    """Why a process has ended without a result."""
    if code == -signal.SIGKILL:
        return "its process was killed, as happens where memory runs out"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    last = complaints.strip().rpartition("\n")[2]
    return f"its process ended with exit code {code}: {last or 'it said nothing'}"

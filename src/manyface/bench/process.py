"""A measurement in a fresh process, so that neither memory nor warmth of another one is in it."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from manyface.base.errors import ManyfaceError

Figures = dict[str, Any]
DOES_NOT_FIT = "does not fit yet"


class MeasurementError(ManyfaceError):
    """A measurement that raised, or whose process died."""


def figures_of(name: str, words: Sequence[str], *, report: Callable[[str, str], None]) -> Figures:
    """What `python -m manyface.bench WORDS` finds, or `error`: why it has found nothing.

    Args:
        name: of the job, for `report`.
        words: as __main__.py takes them.
        report: is told (name, what it does).
    """
    try:
        found = in_own_process(words, report=lambda text: report(name, text))
    except MeasurementError as error:
        report(name, "died")
        return {"error": str(error)}
    report(name, "done" if found.get("fits", True) else DOES_NOT_FIT)
    return found


def in_own_process(words: Sequence[str], *, report: Callable[[str], None]) -> Figures:
    """What `python -m manyface.bench WORDS` finds.

    Raises:
        MeasurementError: it has found nothing, and why.
    """
    command = [sys.executable, "-m", "manyface.bench", *words]
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


def _listen(lines: Iterable[str], report: Callable[[str], None]) -> Figures | None:
    found: Figures | None = None
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

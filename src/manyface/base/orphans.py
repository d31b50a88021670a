"""Processes that end with the one that began them: an orphan would write beside its successor.

Called before anything that takes time is imported, so it imports little itself. As a program it is
`python -m manyface.base.orphans PARENT COMMAND...`, which becomes COMMAND.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


def die_with_launcher() -> None:
    """Be killed when torchrun dies, if it has begun this process; nothing elsewhere."""
    if "TORCHELASTIC_RUN_ID" in os.environ and _is_linux():
        _die_with(os.getppid(), signal.SIGKILL)


def ending_with_us(command: Sequence[str]) -> list[str]:
    """`command` for a process that gets SIGTERM when the thread that began it is gone, however it
    died; elsewhere than on Linux as it is."""
    wrapped = [sys.executable, "-m", __name__, str(os.getpid())] if _is_linux() else []
    return [*wrapped, *command]


def _is_linux() -> bool:
    return sys.platform.startswith("linux")


def _die_with(parent: int, number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, number, 0, 0, 0)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    _die_with(int(sys.argv[1]), signal.SIGTERM)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  the caller's own command

"""Ctrl-C, SIGTERM, SIGUSR1, a closed terminal: a handler sets a flag; the loop saves and ends.

Of several ranks any one may get the signal; they agree on it before every step (loop.py).
"""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import FrameType, TracebackType
from typing import Any, Self

from manyface.base.errors import ManyfaceError
from manyface.parallel import Ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_ONCE = (signal.SIGINT, signal.SIGTERM)  # a second one acts as usual
_STOPPING = "stopping after this step and saving"
_NOTICE = f"{_STOPPING}; another Ctrl-C stops at once, without saving"


class Interrupted(ManyfaceError):
    """A run stopped by a signal after saving; `exit_code` is 128 + signal, as shells have it."""

    def __init__(self, received: signal.Signals, *, checkpoint: Path | None) -> None:
        self.exit_code = 128 + received
        self.checkpoint = checkpoint
        kept = "nothing was trained yet, nothing to save"
        if checkpoint is not None:
            recipe = checkpoint.parent.parent / "config.toml"
            kept = f"saved {checkpoint}; go on with: manyface train {quote(str(recipe))} --resume"
        how = "Ctrl-C" if received == signal.SIGINT else received.name
        super().__init__(f"stopped by {how}: {kept}")


class StopFlag:
    """Inside the `with` block the first signal sets `received`; a second one acts as usual.

    But a hang-up: a terminal closes once, and several processes may pass it on; SIGUSR1, which
    schedulers send; and all signals where there are `launched` ranks, for a Ctrl-C comes from the
    terminal and then from the launcher, which kills when it has waited long enough.
    `notify` is told so within the signal handler, where little is safe (`Progress.alert` is).

    Python runs signal handlers in the main thread only; elsewhere this does nothing, and whoever
    owns the main thread stops the run by `request`.
    """

    def __init__(
        self, *, notify: Callable[[str], None] = lambda text: None, launched: bool = False
    ) -> None:
        self._notify, self._launched = notify, launched
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def request(self, received: signal.Signals = signal.SIGTERM) -> None:
        """Ask the run to stop after its current step."""
        self.received = received

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _heard()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore(*_SIGNALS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number))
        if self._launched:
            self._notify(_STOPPING)
        else:
            self._restore(*_ONCE)
            self._notify(_NOTICE)

    def _restore(self, *numbers: signal.Signals) -> None:
        for number in self._before.keys() & numbers:
            with suppress(TypeError):  # a handler that Python did not install cannot be put back
                signal.signal(number, self._before.pop(number))


def received_by_any(stop: StopFlag, ranks: Ranks) -> signal.Signals | None:
    """The signal that any rank has received by now; all call this, and all stop or none."""
    (number,) = ranks.agree(stop.received or 0, name="stop")
    return signal.Signals(number) if number else None


def _heard() -> list[signal.Signals]:
    """Not a hang-up that is ignored: nohup says that the run outlives its terminal."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in _SIGNALS if number != signal.SIGHUP or not ignored]

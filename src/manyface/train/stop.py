"""Ctrl-C and SIGTERM: a handler sets a flag, the loop finishes its step, saves and says so."""

import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from manyface.base.errors import ManyfaceError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(ManyfaceError):
    """A run stopped by a signal after saving; `exit_code` is 128 + signal, as shells have it."""

    def __init__(self, received: signal.Signals, *, checkpoint: Path | None) -> None:
        self.exit_code = 128 + received
        self.checkpoint = checkpoint
        kept = "nothing was trained yet, nothing to save"
        if checkpoint is not None:
            recipe = checkpoint.parent.parent / "config.toml"
            kept = f"saved {checkpoint}; go on with: manyface train {recipe} --resume"
        how = "Ctrl-C" if received == signal.SIGINT else received.name
        super().__init__(f"stopped by {how}: {kept}")


class StopFlag:
    """Inside the `with` block the first signal sets `received`; a second one acts as usual.

    Python runs signal handlers in the main thread only; elsewhere this does nothing, and whoever
    owns the main thread stops the run by `request`.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def request(self, received: signal.Signals = signal.SIGTERM) -> None:
        """Ask the run to stop after its current step."""
        self.received = received

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number))
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            with suppress(TypeError):  # a handler that Python did not install cannot be put back
                signal.signal(number, handler)
        self._before = {}

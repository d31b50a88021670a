"""The command line: one short file per verb; the only place that parses arguments and prints.

`main` stands here, apart from the program, so that Ctrl-C has its answer before anything that takes
time is imported.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # see manyface/__init__.py
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["INTERRUPTED", "main"]

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `arguments` (default: the process's, which then ends) and return the exit code."""
    if arguments is None and "TORCHELASTIC_RUN_ID" in os.environ:
        from manyface.base.orphans import die_with_launcher

        die_with_launcher()
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler  # not where a shell has it ignored
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from manyface.cli.program import main as run

        return run(arguments)
    except KeyboardInterrupt:
        return _say_interrupted()
    finally:
        if ours:  # what is left of a process that ends has nothing to say about an interrupt
            signal.signal(signal.SIGINT, signal.SIG_DFL if arguments is None else before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, as usual; but in the middle of an import the end, at once.

    There an exception may be swallowed, or printed as ignored: imports run callbacks and foreign
    code. Nothing is lost: nothing that matters is half done while a module is imported.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(_say_interrupted())
        frame = frame.f_back
    raise KeyboardInterrupt


def _say_interrupted() -> int:
    os.write(2, b"error: interrupted\n")
    return INTERRUPTED

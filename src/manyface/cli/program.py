"""Run a command and turn whatever goes wrong into one clear line and an exit code.

Exit codes: 0 done; 1 something the user can mend; 2 a wrong recipe or command line; 70 a defect of
ours (--debug or MANYFACE_DEBUG=1 shows its traceback); 75 another rank failed, go on from the last
checkpoint; 128 + signal when stopped, 130 for Ctrl-C.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from manyface.base.errors import ManyfaceError, PeerError, WriteError, one_line
from manyface.cli import INTERRUPTED
from manyface.cli.app import app
from manyface.cli.console import tell

DEFECT = 70
_FAILED_WRITES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `arguments` (default: the process's) and return the exit code; raises only SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = bool(os.environ.get("MANYFACE_DEBUG"))
    if "--debug" in words:
        words.remove("--debug")
        debug = True
    if not _prepare_streams():
        return 1
    code = _finish_output(_run(words, debug=debug))
    if code == PeerError.exit_code and arguments is None:
        _end_at_once(code)
    return code


def _end_at_once(code: int) -> NoReturn:
    """Without the interpreter's end: a thread that waits for other ranks (a saver's, one that looks
    into their store), and whose wait is over in the middle of that, would abort the process."""
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def _run(words: list[str], *, debug: bool) -> int:
    try:
        code = app(words, prog_name="manyface", standalone_mode=False)
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, code = explain(error)
        for line in text.splitlines() or [type(error).__name__]:
            _complain(line)
        return code
    # typer swallows a KeyboardInterrupt and gives its exit code back instead.
    if code == INTERRUPTED:
        _complain("interrupted")
    return code if isinstance(code, int) else 0


def _complain(line: str) -> None:
    is_one_of_many = os.environ.get("WORLD_SIZE", "1") != "1" and not line.startswith("rank ")
    rank = f"rank {os.environ.get('RANK')}: " if is_one_of_many else ""
    with suppress(OSError):  # the terminal may have been closed; the exit code stays
        tell(f"error: {rank}{line}")


def explain(error: Exception) -> tuple[str, int]:
    """What to tell the user about `error`, and the exit code."""
    if isinstance(error, ManyfaceError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):
        return f"{_first_line(error.format_message())} (see --help)", error.exit_code
    if isinstance(error, typer.Abort):
        return "interrupted", INTERRUPTED
    if _is_out_of_memory(error):
        return f"out of memory: lower train.batch_size or data.image_size ({one_line(error)})", 1
    if isinstance(error, OSError):
        # Whatever else we write names its path.
        if error.filename is None and error.errno in _FAILED_WRITES:
            return str(WriteError("standard output", error)), 1
        place = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror or error}{place}", 1
    return (
        f"a defect of manyface: {one_line(error)}; run again with --debug and report what it "
        "prints",
        DEFECT,
    )


def _is_out_of_memory(error: Exception) -> bool:
    # By name: asking torch for its class would import it. Its CPU allocator raises RuntimeError.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        "RuntimeError" in names and "can't allocate memory" in str(error)
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _prepare_streams() -> bool:
    """Whether there is an output; a name it cannot show is printed with escapes, not refused."""
    if sys.stderr is None:  # closed by the shell: 2>&-
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        _complain("standard output is closed; redirect it to a file, or to /dev/null")
    return sys.stdout is not None


def _finish_output(code: int) -> int:
    """Write what is still buffered; where that fails, give it up, and return the exit code."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        pass  # the reader has seen enough
    except OSError as error:
        if code == 0:  # else it has been said
            text, code = explain(error)
            _complain(text)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code

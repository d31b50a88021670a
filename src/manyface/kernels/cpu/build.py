"""`rows.cpp` compiled for this machine, once: the library is kept in the user's cache folder.

Compiling takes a second. Where there is no compiler, or it fails, or what it made cannot be loaded,
there is a reason instead, and plain torch does the work.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from ctypes import CDLL
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_SOURCE = Path(__file__).with_name("rows.cpp")
# Libraries made for one processor crash on another, so they are named after all of this. OpenMP is
# that of torch, whose library of the same name is loaded already: one set of threads.
_OPTIONS = (
    *("-O3", "-march=native", "-fopenmp"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
_PATIENCE = 120.0  # seconds


class CannotBuild(Exception):
    """There is no library; says why."""


@cache
def library() -> CDLL | str:
    """The compiled kernels, or the reason why there are none."""
    try:
        compiler = _compiler()
        folder = _cache_folder()
        kept = None if folder is None else folder / f"kernels-{_digest(compiler)}.so"
        return _kept(kept) or _built(compiler, kept)
    except CannotBuild as error:
        return str(error)
    except OSError as error:
        return f"cannot compile: {error}"


def _compiler() -> str:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        raise CannotBuild("no C++ compiler")
    return found


def _digest(compiler: str) -> str:
    """Of all that decides what is compiled."""
    parts = (_SOURCE.read_text(), *_OPTIONS, _run(compiler, "--version"), _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What tells its instructions from another one's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *sorted({x for x in lines if x.startswith(wanted)})])


def _cache_folder() -> Path | None:
    """The user's; None where there is none: code is not loaded from a folder that anybody owns."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # noqa: PTH117
        home = os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(home) / "manyface" if os.path.isabs(home) else None  # noqa: PTH117


def _kept(path: Path | None) -> CDLL | None:
    """The library at `path` if it is there and whole: its own digest lies beside it."""
    try:
        if path is None or _note(path).read_text() != _digest_of(path):
            return None
        return CDLL(str(path))
    except OSError:
        return None


def _built(compiler: str, kept: Path | None) -> CDLL:
    with TemporaryDirectory(prefix="manyface-") as folder:
        made = Path(folder) / "kernels.so"
        _run(compiler, *_OPTIONS, "-shared", "-fPIC", str(_SOURCE), "-o", str(made))
        found = CDLL(str(made))  # it stays loaded when the file is gone
        if kept is not None:
            _keep(made, kept)
    return found


def _keep(made: Path, kept: Path) -> None:
    """For the next process, if there is room; several may do so at once."""
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".kernels-", dir=kept.parent) as folder:
            copied = Path(shutil.copy(made, folder))
            _note(copied).write_text(_digest_of(made))
            copied.replace(kept)
            _note(copied).replace(_note(kept))


def _note(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*command: str) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{command[0]} does not run: {error}") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise CannotBuild(f"{command[0]} failed: {said[0]}")
    return done.stdout

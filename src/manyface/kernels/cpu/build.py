"""`rows.cpp` compiled for this machine, once: the library is kept in the user's cache folder.

Compiling takes a second. Where there is no compiler, or it fails, or what it made cannot be loaded,
there is a reason instead, and plain torch does the work.
"""

import hashlib
import os
import platform
import shutil
import subprocess
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
        kept = _cache_folder() / f"kernels-{_digest(compiler)}.so"
        return _loaded(kept) or _built(compiler, kept)
    except CannotBuild as error:
        return str(error)


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


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(home) / "manyface"


def _loaded(path: Path) -> CDLL | None:
    """The library at `path`; None if it is not there, or is none."""
    try:
        return CDLL(str(path)) if path.is_file() else None
    except OSError:
        return None


def _built(compiler: str, kept: Path) -> CDLL:
    with TemporaryDirectory(prefix="manyface-") as folder:
        made = Path(folder) / "kernels.so"
        _run(compiler, *_OPTIONS, "-shared", "-fPIC", str(_SOURCE), "-o", str(made))
        _keep(made, kept)
        found = _loaded(made)  # it stays loaded when the file is gone
    if found is None:
        raise CannotBuild(f"what {compiler} made cannot be loaded")
    return found


def _keep(made: Path, kept: Path) -> None:
    """For the next process, if there is room; several may do so at once."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".kernels-", dir=kept.parent) as folder:
            Path(shutil.copy(made, folder)).replace(kept)
    except OSError:
        pass


def _run(*command: str) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{command[0]} does not run: {error}") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise CannotBuild(f"{command[0]} failed: {said[0]}")
    return done.stdout

"""Faults that a test arms in a rank, by replacing functions of manyface there; none are in src.

A fault strikes one rank, once, at a phase of a save or of a run (`at`), or at a step. It leaves the
file `struck` in the attempt's folder when it does.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = (
    "begin",
    "data",
    "sync",
    "manifest",
    "manifest-sync",
    "before-rename",
    "after-rename",
    "pointer",
    "retention",
    "deleting",
)
MOMENTS = ("building", "step", "evaluation")


def arm(folder: Path, *, kind: str, rank: int, once: bool = True, **options: Any) -> None:
    """Make ready the fault `kind` if this is `rank`; not again after a restart if `once`."""
    struck = folder / "struck"
    if int(os.environ["RANK"]) != rank or (once and struck.exists()):
        return
    if kind == "hold":
        _arm_hold(struck, folder / "release", **options)
    elif kind in ("skip", "mismatch"):
        _arm_out_of_step(struck, other=kind == "mismatch", **options)
    else:
        _arm_at_step(struck, ACTS[kind], **options)


def _arm_at_step(struck: Path, act: Callable[[], object], *, step: int) -> None:
    """Do `act` before update number `step`, from 0."""
    from manyface.train import loop

    make_step = loop.train_step

    def new_step(*arguments: Any, **settings: Any) -> Any:
        if settings["step"] == step:
            struck.touch()
            act()
        return make_step(*arguments, **settings)

    loop.train_step = new_step


def _arm_out_of_step(struck: Path, *, step: int, other: bool) -> None:
    """Before update number `step` leave out what the ranks agree on, or make another collective."""
    from manyface.parallel import HERE
    from manyface.train import loop

    agree = loop.agreed

    def new_agreed(received: Any, saver: Any, ranks: Any) -> Any:
        if HERE.step != step or struck.exists():
            return agree(received, saver, ranks)
        struck.touch()
        if other:
            ranks.counts(*range(64), name="another collective")
        return None, False, False

    loop.agreed = new_agreed


def _raise() -> None:
    raise RuntimeError("a defect that a test made")


def _hold_interpreter() -> None:
    """In C, with the interpreter's lock, as a defect of an extension does."""
    ctypes.PyDLL(None).sleep(3600)


ACTS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "exception": _raise,
    "exit 0": lambda: os._exit(0),
    "sleep": lambda: time.sleep(3600),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "interpreter held": _hold_interpreter,
}


def _arm_hold(struck: Path, release: Path, *, at: str, visit: int) -> None:
    """Stop in the `visit`-th pass through the phase `at` of a save, until `release` is there."""
    passes = 0

    def reached(phase: str) -> None:
        nonlocal passes
        if phase != at:
            return
        passes += 1
        if passes == visit:
            struck.touch()
            until = time.monotonic() + 20
            while not release.exists() and time.monotonic() < until:
                time.sleep(0.005)

    watch_saves(reached)
    watch_run(reached)


def watch_run(reached: Callable[[str], None]) -> None:
    """Call `reached(phase)` as parts of a run begin: "building", "step", "evaluation"."""
    from manyface.train import loop, run

    build, make_step, evaluate = run.build_training, loop.train_step, run.Validation.__call__

    def new_build(*arguments: Any, **settings: Any) -> Any:
        reached("building")
        return build(*arguments, **settings)

    def new_step(*arguments: Any, **settings: Any) -> Any:
        reached("step")
        return make_step(*arguments, **settings)

    def new_evaluate(self: Any, step: int) -> Any:
        reached("evaluation")
        return evaluate(self, step)

    run.build_training, loop.train_step = new_build, new_step
    run.Validation.__call__ = new_evaluate  # type: ignore[method-assign]


def watch_saves(reached: Callable[[str], None]) -> None:
    """Call `reached(phase)` inside each phase of a save; data and deletion when half done."""
    from manyface.checkpoint import disk

    make, rename, discard = disk.make_directory, disk.rename, disk.discard
    write, sync = disk.NewFile.write, disk.NewFile.sync

    def new_make(path: Path) -> None:
        make(path)
        reached("begin")

    def new_rename(old: Path, new: Path) -> None:
        is_commit = new.name.startswith("step-")
        if is_commit:
            reached("before-rename")
        elif new.name.startswith(".del-"):
            reached("retention")
        elif new.suffix == ".json":
            reached("pointer")
        rename(old, new)
        if is_commit:
            reached("after-rename")

    def new_discard(path: Path) -> None:
        if path.name.startswith(".del-") and path.is_dir():
            for file in sorted(path.iterdir())[::2]:
                file.unlink()
            reached("deleting")
        discard(path)

    def new_write(self: disk.NewFile, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        half = len(view) // 2
        write(self, view[:half])
        if self.path.name == "MANIFEST.json":
            reached("manifest")
        elif self.path.suffix == ".safetensors":
            reached("data")
        write(self, view[half:])

    def new_sync(self: disk.NewFile) -> None:
        if self.path.name == "MANIFEST.json":
            reached("manifest-sync")
        elif self.path.suffix == ".safetensors":
            reached("sync")
        sync(self)

    disk.make_directory, disk.rename, disk.discard = new_make, new_rename, new_discard
    disk.NewFile.write, disk.NewFile.sync = new_write, new_sync  # type: ignore[method-assign]

"""Faults that a test arms in a rank, by replacing functions of manyface there; none are in src.

A fault strikes one rank, once, at a phase of a save (`at`) or at a step. It leaves the file
`struck` in the attempt's folder when it does.
"""

import os
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


def arm(folder: Path, *, kind: str, rank: int, once: bool = True, **options: Any) -> None:
    """Make ready the fault `kind` if this is `rank`; not again after a restart if `once`."""
    struck = folder / "struck"
    if int(os.environ["RANK"]) != rank or (once and struck.exists()):
        return
    if kind == "hold":
        _arm_hold(struck, folder / "release", **options)
    else:
        raise ValueError(f"no fault {kind!r}")


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

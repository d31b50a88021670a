"""Where figures come from: versions, the commit of a source checkout, the processor."""

import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import manyface


def provenance() -> dict[str, str | None]:
    """What a file of measurements says about where its figures come from."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"date": date, "commit": commit(), "device": processor(), **versions()}


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "manyface": _own_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def commit() -> str | None:
    """The commit of a source checkout, read from its .git; None for an installed package."""
    package = Path(manyface.__file__).resolve().parent
    root = package.parent.parent
    if package != root / "src" / "manyface":
        return None
    try:
        return read_commit(root / ".git")
    except OSError:
        return None


def read_commit(git: Path) -> str | None:
    """What HEAD is in a .git: the folder, or the file that a further worktree has in its place."""
    if git.is_file():
        git = git.parent / git.read_text().strip().removeprefix("gitdir: ")
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    common = git / "commondir"  # of a worktree: where the references are
    if common.is_file():
        git = git / common.read_text().strip()
    return _resolve(git, head.removeprefix("ref: "))


def processor() -> str:
    """Name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def _resolve(git: Path, ref: str) -> str | None:
    if (git / ref).is_file():
        return (git / ref).read_text().strip()
    lines = (git / "packed-refs").read_text().splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), None)


def _own_version() -> str:
    try:
        return metadata.version("manyface")
    except metadata.PackageNotFoundError:
        return "not installed"

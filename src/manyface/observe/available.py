"""Memory that a program may still ask for: the machine's, or less where control groups limit it.

In a container the machine's figures are the host's; what ends the program is the limit of its
control group (version 1 or 2), or of one of those above.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_GROUPS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
# Of either version: the limit, what is in use, and which part of that is file pages to be dropped.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes(*, groups: Path = _GROUPS, root: Path = _ROOT) -> int:
    """Bytes left, 0 at least; the arguments are where the control groups are looked up."""
    left = [_of_group(folder) for folder in _folders(groups, root)]
    return max(0, min(_of_machine(), *(each for each in left if each is not None), 2**63))


def _of_machine() -> int:
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _folders(groups: Path, root: Path) -> Iterator[Path]:
    """The control groups of this process and all above; some may not be visible from inside."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / controllers
            folder = top / path.lstrip("/")
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(top))


def _of_group(folder: Path) -> int | None:
    """Bytes left under the limit of one control group; None: it has none that can be read."""
    for limit, used, cache in _FILES:
        try:
            most = (folder / limit).read_text().strip()
            if most == "max":
                return None
            now = int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except OSError:
            continue
        return int(most) - now + int(stat.get(cache, 0))
    return None

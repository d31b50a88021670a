"""Where a checkpoint lies and what its files are called: names only, no writing.

<run>/checkpoints/
    step-00001200/          committed: the name appears by one rename, complete or not at all
        backbone.safetensors  head.safetensors  ...   one file per group of tensors
        head-0-of-4.safetensors  ...   rows that rank 0 of 4 has of the group's tables
        state.json          everything that is not a tensor
        MANIFEST.json       sizes and hashes of the files above
    last.json  best.json    pointers
    .tmp-..., .del-...      unfinished or half-deleted, swept away by the next writer
    damaged-step-...        refused by a reader and put aside, never chosen again
"""

import json
import re
from pathlib import Path
from typing import Any

from manyface.base.errors import CheckpointError

FORMAT = "manyface-checkpoint"
FORMAT_VERSION = 2
MANIFEST_NAME = "MANIFEST.json"
STATE_NAME = "state.json"
TENSOR_SUFFIX = ".safetensors"
TEMPORARY_PREFIX = ".tmp-"
DELETING_PREFIX = ".del-"
DAMAGED_PREFIX = "damaged-"

_STEP_NAME = re.compile(r"step-(\d{8,})")
# No separator, no leading dot: a manifest can never name a file outside of its own directory.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def step_name(step: int) -> str:
    """The directory name of a step; eight digits sort well, more are allowed."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int | None:
    """The step in a checkpoint's directory name; None if it is no such name."""
    match = _STEP_NAME.fullmatch(path.name)
    return int(match.group(1)) if match else None


def shard_file(group: str, *, rank: int, size: int) -> str:
    """The name of the file with the rows that a rank has of a group's tables."""
    return f"{group}-{rank}-of-{size}{TENSOR_SUFFIX}"


def is_file_name(name: object) -> bool:
    """Whether `name` may stand in a manifest."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints, oldest step first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if step_of(path) is not None and path.is_dir()]
    return sorted(found, key=lambda path: step_of(path) or 0)


def newest(directory: Path) -> Path | None:
    """The committed checkpoint of the highest step; None if there is none."""
    return next(reversed(committed(directory)), None)


def read_pointer(directory: Path, name: str) -> Path | None:
    """The checkpoint that `<name>.json` (last, best) points to; None without such a pointer."""
    facts = read_facts(directory, name)
    return directory / facts["checkpoint"] if facts else None


def read_facts(directory: Path, name: str) -> dict[str, Any]:
    """All that `<name>.json` says, such as the score of the best; empty without such a pointer."""
    path = directory / f"{name}.json"
    if not path.exists():
        return {}
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        target = facts["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a pointer to a checkpoint, got {error}") from error
    if not isinstance(target, str) or step_of(Path(target)) is None or "/" in target:
        raise CheckpointError(f"{path}: expected the name of a checkpoint, got {target!r}")
    return facts

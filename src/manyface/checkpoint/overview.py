"""What a checkpoint holds, without reading its tensors."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from manyface.base.errors import CheckpointError, DamagedCheckpointError
from manyface.checkpoint.layout import MANIFEST_NAME, STATE_NAME, newest
from manyface.checkpoint.manifest import DTYPES, Manifest, read_manifest
from manyface.checkpoint.verify import check_listing, group_files


@dataclass(frozen=True)
class TensorFacts:
    """A tensor of a checkpoint.

    Attributes:
        dtype: as safetensors calls it.
        shape: of the whole.
        num_bytes: of the whole.
        num_files: that its rows lie in.
    """

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    num_files: int = 1


@dataclass(frozen=True)
class Overview:
    """A checkpoint: who wrote it, what is in it; its bytes have not been checked.

    Attributes:
        path: its directory.
        step: finished updates.
        num_ranks: that wrote it.
        num_bytes: of all its files.
        groups: group -> name -> tensor.
        state: the JSON state.
    """

    path: Path
    step: int
    num_ranks: int
    num_bytes: int
    groups: dict[str, dict[str, TensorFacts]]
    state: dict[str, Any]


def find_checkpoint(path: Path) -> Path:
    """`path` if it is a checkpoint, else the newest in that folder of checkpoints, or of that run.

    Raises:
        CheckpointError: there is none.
    """
    if (path / MANIFEST_NAME).exists():
        return path
    found = newest(path) or newest(path / "checkpoints")
    if found is None:
        what = "has no checkpoint" if path.is_dir() else "is no directory"
        raise CheckpointError(
            f"{path} {what}: name a checkpoint (step-...), a folder of them, or the folder of a run"
        )
    return found


def overview(path: Path) -> Overview:
    """What the checkpoint directory `path` holds, by its manifest and the headers of its files."""
    manifest = read_manifest(path)
    try:
        check_listing(path, manifest)
        groups = {
            group: {**_tensors(path / name), **_tables(manifest, group)}
            for group, name in group_files(manifest).items()
        }
        state = json.loads((path / STATE_NAME).read_bytes())
    except (ValueError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path} is damaged: {error}") from error
    num_bytes = sum(facts.num_bytes for facts in manifest.files.values())
    return Overview(path, manifest.step, manifest.num_ranks, num_bytes, groups, state)


def _tensors(path: Path) -> dict[str, TensorFacts]:
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    return {
        name: _facts(slices[name].get_dtype(), tuple(slices[name].get_shape()))
        for name in sorted(slices, key=_by_number)
    }


def _by_number(name: str) -> list[tuple[int, str]]:
    """So that state.10 comes after state.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _tables(manifest: Manifest, group: str) -> dict[str, TensorFacts]:
    members = manifest.tables.get(group, {})
    return {name: _facts(each.dtype, each.shape, len(each.rows)) for name, each in members.items()}


def _facts(dtype: str, shape: tuple[int, ...], num_files: int = 1) -> TensorFacts:
    return TensorFacts(dtype, shape, math.prod(shape) * DTYPES[dtype].itemsize, num_files)

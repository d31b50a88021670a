"""Reading a checkpoint: everything is verified before the first tensor is returned."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from manyface.base.errors import CheckpointError, DamagedCheckpointError
from manyface.checkpoint.layout import STATE_NAME
from manyface.checkpoint.manifest import DTYPES, Manifest, read_manifest, render
from manyface.checkpoint.tables import Rows, StoredTable
from manyface.checkpoint.together import SystemCallError, together
from manyface.checkpoint.verify import group_files, verify
from manyface.parallel import Ranks


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint.

    Tensors are views of the files, read when they are used and private when they are written, so
    that a table of class centers is not in memory twice while it is loaded. A deleted file lives on
    until they are gone; clone what is to be kept.

    Attributes:
        path: its directory.
        step: finished updates.
        tensors: group -> name -> tensor.
        state: the JSON state.
        tables: group -> name -> table whose rows lie in several files.
        num_ranks: that wrote it.
    """

    path: Path
    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    tables: dict[str, dict[str, StoredTable]] = field(default_factory=dict)
    num_ranks: int = 1

    def group(self, name: str) -> dict[str, torch.Tensor | StoredTable]:
        """All that a group holds, by name."""
        return {**self.tensors[name], **self.tables.get(name, {})}


def load(
    path: Path, *, groups: tuple[str, ...] | None = None, ranks: Ranks | None = None
) -> Checkpoint:
    """Verify and read the checkpoint directory `path`; `groups` limits which tensors are read.

    All `ranks` (default: all there are) call this; each checks a share of the bytes, and all return
    or all raise. They may be more or fewer than wrote it.

    Raises DamagedCheckpointError naming the file that is damaged, missing or extra; CheckpointError
    for a checkpoint of another version, or one that the system does not let us read just now.
    """
    path, ranks = Path(path), ranks or Ranks()
    try:
        manifest, said = together(
            ranks,
            "verdict on a checkpoint",
            lambda: _verified(path, ranks),
            tell=lambda manifest: hash_of(manifest),
        )
    except SystemCallError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    if len(set(said)) > 1:
        raise CheckpointError(f"ranks see different checkpoints at {path}: share the file system")
    return _open(path, manifest, groups)


def hash_of(manifest: Manifest) -> str:
    """The manifest's hash of itself."""
    return str(json.loads(render(manifest))["xxh3"])


def _verified(path: Path, ranks: Ranks) -> Manifest:
    if not path.is_dir():
        raise CheckpointError(f"{path} is no checkpoint: there is no such directory")
    manifest = read_manifest(path)
    try:
        verify(path, manifest, rank=ranks.rank, size=ranks.size)
    except SafetensorError as error:
        raise DamagedCheckpointError(f"{path} is damaged: {error}") from error
    return manifest


def _open(path: Path, manifest: Manifest, groups: Iterable[str] | None) -> Checkpoint:
    files = group_files(manifest)
    wanted = files if groups is None else {name: files[name] for name in groups if name in files}
    try:
        tensors = {group: load_file(path / name) for group, name in wanted.items()}
        state = json.loads((path / STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    return Checkpoint(
        path=path,
        step=manifest.step,
        tensors=tensors,
        state=state,
        tables={group: _tables(path, manifest, group) for group in wanted},
        num_ranks=manifest.num_ranks,
    )


def _tables(path: Path, manifest: Manifest, group: str) -> dict[str, StoredTable]:
    found = {}
    for name, facts in manifest.tables.get(group, {}).items():
        rows = tuple(Rows(path / file, start, stop) for start, stop, file in facts.in_order())
        found[name] = StoredTable(name, DTYPES[facts.dtype], facts.shape, rows)
    return found

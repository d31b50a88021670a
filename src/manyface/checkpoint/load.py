"""Reading a checkpoint: everything is verified before the first tensor is returned."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from manyface.base.errors import CheckpointError
from manyface.checkpoint.layout import STATE_NAME, TENSOR_SUFFIX, step_of
from manyface.checkpoint.manifest import verify


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: group -> name -> tensor, and the JSON state.

    Tensors are views of the files, read when they are used and private when they are written, so
    that a table of class centers is not in memory twice while it is loaded. A deleted file lives on
    until they are gone; clone what is to be kept.
    """

    path: Path
    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


def load(path: Path, *, groups: tuple[str, ...] | None = None) -> Checkpoint:
    """Verify and read the checkpoint directory `path`; `groups` limits which tensors are read.

    Raises DamagedCheckpointError naming the file that is damaged, missing or extra; CheckpointError
    for a checkpoint of another version, or one that the system does not let us read just now.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is no checkpoint: there is no such directory")
    try:
        files = verify(path)
        names = [name for name in files if name.endswith(TENSOR_SUFFIX)]
        wanted = {name.removesuffix(TENSOR_SUFFIX): path / name for name in names}
        if groups is not None:
            wanted = {group: wanted[group] for group in groups if group in wanted}
        tensors = {group: load_file(file) for group, file in wanted.items()}
        state = json.loads((path / STATE_NAME).read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    return Checkpoint(path=path, step=step_of(path) or 0, tensors=tensors, state=state)

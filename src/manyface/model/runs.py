"""A run, or one of its checkpoints, as a model: the net as the run evaluates it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from manyface.backbones.recognise import architecture_of
from manyface.base.errors import CheckpointError
from manyface.checkpoint import load, step_of
from manyface.checkpoint.layout import MANIFEST_NAME
from manyface.model.face_model import FaceModel
from manyface.model.fingerprint import hash_of_tensors
from manyface.model.preprocessing import Preprocessing
from manyface.train import directory as places
from manyface.train.build_model import build_precision
from manyface.train.devices import choose_device
from manyface.train.scoring import find_checkpoint, load_embedder, read_run_config


def is_run(path: Path) -> bool:
    """Whether the folder is that of a run, or of a checkpoint."""
    return (path / places.CONFIG).is_file() or is_checkpoint(path)


def is_checkpoint(path: Path) -> bool:
    """Whether the folder is a checkpoint."""
    return (path / MANIFEST_NAME).is_file()


def open_run(path: Path, *, checkpoint: str = "last", device: str | None = None) -> FaceModel:
    """The net of the run in the folder `path`, or of the checkpoint that it is.

    Args:
        checkpoint: "last", "best", or the name of a folder in `checkpoints`; of a run.
        device: as run.device; None takes a GPU where there is one.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    directory, chosen = find_run(path, checkpoint)
    config = read_run_config(directory)
    where = choose_device(device or "auto")
    stored = load(chosen, groups=("averaged", "backbone"))
    net = load_embedder(config, stored)
    architecture = architecture_of(net.state_dict())
    if architecture is not None and architecture.options:  # complete for any name of the family
        architecture = replace(architecture, name=config.backbone.name)
    provenance = {
        "run": config.run.name,
        "checkpoint": chosen.name,
        "step": stored.step,
        "data": stored.state.get("data", {}),
        "trained_by": _trained_by(directory),
    }
    return FaceModel(
        net.to(where),
        name=config.run.name,
        weights=hash_of_tensors(net.state_dict()),
        embedding_size=config.backbone.embedding_size,
        preprocessing=Preprocessing(config.data.image_size, flip=config.evaluation.flip),
        device=where,
        architecture=architecture,
        autocast=build_precision(config, where, warn=lambda text: None),
        provenance=provenance,
    )


def find_run(path: Path, checkpoint: str = "last") -> tuple[Path, Path]:
    """The folder of a run and that of its checkpoint, of either of which `path` is one.

    Raises:
        CheckpointError: there is no such checkpoint, or it lies outside of a run.
    """
    if not is_checkpoint(path):
        return path, find_checkpoint(path, checkpoint)
    path = path.resolve()
    directory = path.parent.parent
    if step_of(path) is None or not (directory / places.CONFIG).is_file():
        raise CheckpointError(
            f"{path} is a checkpoint outside of its run: expected {places.CONFIG}, which says what "
            "net it is, two folders above; name the run, or what `manyface export` made of it"
        )
    return directory, path


def _trained_by(directory: Path) -> dict[str, Any]:
    """Versions and commit that a finished run has written down; nothing of another."""
    try:
        result = json.loads((directory / places.RESULT).read_bytes())
        return {"commit": result["commit"], **result["versions"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

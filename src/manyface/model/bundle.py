"""A model in one safetensors file: tensors, and in its metadata all that using them takes.

Specification: docs/formats/bundle.md. No pickle, no code: the net is built from its name.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from manyface.backbones.load import OPTIONAL
from manyface.base.errors import CheckpointError, ConfigError, DamagedCheckpointError
from manyface.checkpoint.stream import safetensors_chunks
from manyface.model.card import KEY, Card
from manyface.model.face_model import FaceModel
from manyface.model.fingerprint import fingerprint_of, hash_of_tensors
from manyface.model.published import restore


def bundle_chunks(net: nn.Module, card: Card) -> Iterable[bytes | memoryview]:
    """The bytes of the file."""
    return safetensors_chunks(tensors_of(net), {KEY: card.to_json()})


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """What a net computes with, by name."""
    return {name: v for name, v in net.state_dict().items() if not name.endswith(OPTIONAL)}


def texts_of(path: Path) -> dict[str, str]:
    """What the safetensors file at `path` says beside its tensors; the card is under `KEY`.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            texts: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); is it whole? get it again") from error
    return texts


def open_bundle(path: Path, text: str, *, device: torch.device) -> FaceModel:
    """The model in the bundle at `path`, whose card is `text`.

    Raises:
        CheckpointError: it is of another version, or not as specified.
        DamagedCheckpointError: its tensors are not those that were written.
    """
    card = Card.from_json(text, where=str(path))
    tensors = _read(path)
    try:
        found = hash_of_tensors(tensors)
    except TypeError as error:  # of a dtype that no bundle has
        raise DamagedCheckpointError(f"{path} is damaged: {error}; get it again") from error
    if (found, fingerprint_of(found, card.preprocessing)) != (card.weights, card.fingerprint):
        raise DamagedCheckpointError(
            f"{path} is damaged: expected tensors with xxh3 {card.weights}, got {found}, and "
            f"fingerprint {card.fingerprint}; get it again"
        )
    try:
        net = restore(card.architecture, tensors, path)
    except (ConfigError, TypeError, ValueError, RuntimeError) as error:  # of another's options
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: its architecture: {reason}") from error
    return FaceModel(
        net.to(device),
        name=card.name,
        weights=card.weights,
        embedding_size=card.architecture.embedding_size,
        preprocessing=card.preprocessing,
        device=device,
        threshold=card.threshold,
        architecture=card.architecture,
        provenance=card.provenance,
        license=card.license,
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpointError(f"{path} is damaged: {error}; get it again") from error

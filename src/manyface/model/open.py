"""What kind of model lies at a path, by its content, and opening it. Nothing is unpickled."""

from pathlib import Path

import torch

from manyface.backbones.load import TORCH_STARTS, looks_like_safetensors
from manyface.base.errors import CheckpointError, ConfigError
from manyface.model.bundle import open_bundle, texts_of
from manyface.model.card import KEY
from manyface.model.face_model import FaceModel
from manyface.model.onnx_read import open_onnx
from manyface.model.preprocessing import COLOURS, Colour
from manyface.model.published import find_weights, open_weights
from manyface.model.runs import is_run, open_run
from manyface.train.devices import choose_device

KINDS = (
    "the folder of a run, a checkpoint of one, a bundle (manyface export), an ONNX file, or "
    "weights published by insightface, AdaFace or CVLface"
)

_PROTOBUF = b"\x08"  # ir_version, a number, is the first field that writers of ONNX write


def load(
    path: Path | str,
    *,
    device: str | None = None,
    checkpoint: str = "last",
    colour: Colour | None = None,
) -> FaceModel:
    """The model at `path`, ready to embed faces.

    Args:
        path: of a run or of a checkpoint (step-...) in it, a bundle, an ONNX file, or weights as
            insightface, AdaFace and CVLface publish them (or the folder that holds them).
        device: "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        checkpoint: of a run: "last", "best", or the name of a folder in its `checkpoints`.
        colour: order of the channels that the net takes, "RGB" or "BGR", of files that do not say
            it themselves; None: as their publisher feeds them. Images are RGB in any case.

    Raises:
        CheckpointError: there is nothing, it is damaged, or it is no model.
        ConfigError: there is no such device; or the file says that it takes another colour.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"no model at {path}: there is no such file or folder")
    if not path.is_dir() and not path.is_file():  # a pipe would wait
        raise CheckpointError(f"no model at {path}: it is neither a file nor a folder")
    if path.is_dir() and is_run(path):
        model = open_run(path, checkpoint=checkpoint, device=device)
    else:
        file = find_weights(path) if path.is_dir() else path
        if file is None:
            raise CheckpointError(f"{path} is no model: expected {KINDS}")
        model = _open_file(file, choose_device(device or "auto"), colour)
    if colour not in (None, model.preprocessing.colour):
        raise ConfigError(
            f"colour is {colour}, but {path} says itself that its net takes "
            f"{model.preprocessing.colour}; leave colour out"
        )
    return model


def _open_file(path: Path, device: torch.device, colour: Colour | None) -> FaceModel:
    start = _start_of(path)
    is_safetensors = looks_like_safetensors(start)
    texts = texts_of(path) if is_safetensors else {}
    if KEY in texts:
        return open_bundle(path, texts[KEY], device=device)
    if is_safetensors or start.startswith(TORCH_STARTS):
        said = next((each for each in COLOURS if each == texts.get("colour")), None)
        return open_weights(path, device=device, colour=said or colour)
    if start.startswith(_PROTOBUF) or path.suffix == ".onnx":
        return open_onnx(path, device=device, colour=colour)
    raise CheckpointError(f"{path} is no model (it begins with {start!r}): expected {KINDS}")


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error

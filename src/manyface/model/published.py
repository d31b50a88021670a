"""Weights as others publish them -> models: the net is found by names and shapes of the tensors.

    insightface    iResNet, MobileFaceNet, ViT: backbone.pth, model.pt, checkpoint_gpu_0.pt    RGB
    CVLface        IR, iResNet, ViT, each name after "net.": model.pt                          RGB
    AdaFace        IR, each name after "model.", class centers beside them: adaface_*.ckpt     BGR

and what `manyface checkpoint export` writes, which says its colour itself (open.py). All take
(x - 127.5) / 127.5. Other files of weights do not say how they are fed; what is assumed here is
what their publisher's own code does, and can be overruled. Files of torch are read with
`weights_only=True`: one with other objects is refused.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from manyface.backbones.ir import IRNet
from manyface.backbones.load import OPTIONAL, Weights, check_fit, read_weights
from manyface.backbones.recognise import Architecture, architecture_of
from manyface.backbones.vit import VisionTransformer
from manyface.base.errors import CheckpointError, NonFiniteError
from manyface.model.face_model import FaceModel
from manyface.model.fingerprint import hash_of_tensors
from manyface.model.preprocessing import Colour, Preprocessing

# What publishers call the file in a folder of theirs.
FILES = ("model.safetensors", "model.pt", "backbone.pth", "pretrained_model/model.pt")
_PLAIN_NAMES = {"model", "backbone", "pretrained_model", "checkpoint_gpu_0"}
_NOT_NEEDED = "mask_token"  # drawn in training only; not in all files


def find_weights(folder: Path) -> Path | None:
    """The file of weights in a publisher's folder; None if there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def open_weights(path: Path, *, device: torch.device, colour: Colour | None = None) -> FaceModel:
    """The net whose weights are in the file at `path`.

    Args:
        colour: order of the channels that it takes; None: as its publisher feeds it.

    Raises:
        CheckpointError: it cannot be read, is of no net that is known, or a tensor of it does not
            fit that net.
        NonFiniteError: a weight is NaN or infinite.
    """
    found = read_weights(path)
    architecture = architecture_of(found.tensors)
    if architecture is None:
        names = ", ".join(sorted(found.tensors)[:3])
        raise CheckpointError(
            f"{path} holds weights of no net that is known here ({len(found.tensors)} tensors: "
            f"{names}, ...); expected an iResNet, MobileFaceNet, ViT or IR net: docs/backbones.md"
        )
    net = restore(architecture, found.tensors, path)
    preprocessing = Preprocessing(architecture.image_size, colour or _colour_of(net, found))
    return FaceModel(
        net.to(device),
        name=_name_of(path),
        weights=hash_of_tensors(net.state_dict()),
        embedding_size=architecture.embedding_size,
        preprocessing=preprocessing,
        device=device,
        architecture=architecture,
        provenance={"file": path.name},
    )


def restore(architecture: Architecture, tensors: dict[str, Tensor], path: Path) -> nn.Module:
    """The net in evaluation mode, every tensor of it from `tensors`, which the file `path` holds.

    Raises:
        CheckpointError: one is missing, unknown or of another shape.
        NonFiniteError: one holds NaN or infinity.
    """
    check_finite(tensors, path)
    net = architecture.build(device="meta")  # takes no memory, whatever the file claims to be of
    if isinstance(net, VisionTransformer) and _NOT_NEEDED not in tensors:
        tensors = {**tensors, _NOT_NEEDED: torch.zeros(net.mask_token.shape)}
    check_fit(net, tensors, path)
    net.to_empty(device="cpu")
    for name, buffer in net.named_buffers():
        if name.endswith(OPTIONAL):
            buffer.zero_()
    net.load_state_dict(tensors, strict=False)  # strict but for OPTIONAL: checked above
    return net.eval().requires_grad_(False)


def check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise NonFiniteError naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{path}: {name} holds NaN or infinity; take an earlier one")


def _colour_of(net: nn.Module, found: Weights) -> Colour:
    return "BGR" if isinstance(net, IRNet) and not found.wrapper.endswith("net.") else "RGB"


def _name_of(path: Path) -> str:
    """The file's, or its folder's where the file is called like all others."""
    parts = [path.stem, *(parent.name for parent in path.absolute().parents)]
    return next((part for part in parts if part and part not in _PLAIN_NAMES), path.stem)

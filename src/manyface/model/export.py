"""A model written as a bundle or as ONNX, and compared with itself before the file gets its name.

The file is written beside its place, opened again as any user would open it, and given the same
faces: some one by one, some three at a time, and all at once. Where an embedding points elsewhere
than that of the trained net (cosine below 0.9999) the file is taken away again.
"""

import copy
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

import manyface
from manyface.backbones.recognise import Architecture
from manyface.base.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteError,
    WriteError,
)
from manyface.checkpoint import disk
from manyface.checkpoint.layout import MANIFEST_NAME, TEMPORARY_PREFIX
from manyface.checkpoint.stream import write_file
from manyface.evaluate import make_embed_function
from manyface.evaluate.embed import EmbedFunction
from manyface.model.bundle import bundle_chunks
from manyface.model.card import Card
from manyface.model.face_model import FaceModel
from manyface.model.fingerprint import fingerprint_of, hash_of_tensors
from manyface.model.onnx_write import onnx_bytes
from manyface.model.open import load
from manyface.model.threshold import Threshold
from manyface.observe.provenance import commit

Form = Literal["safetensors", "onnx"]
FORMS: tuple[Form, ...] = get_args(Form)
LEAST_COSINE = 0.9999
_BATCHES = (1, 3)  # and all


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        card: what it says of the model.
        num_bytes: of it.
        least_cosine: between its embedding of a face and that of the trained net.
        num_faces: that were compared.
    """

    path: Path
    card: Card
    num_bytes: int
    least_cosine: float
    num_faces: int


def export(
    model: FaceModel,
    output: Path,
    form: Form,
    faces: Tensor,
    *,
    threshold: Threshold | None = None,
    license: str | None = None,
    normalise: bool = False,
) -> Exported:
    """Write `model` to `output`; a file that is there already is replaced, in one go.

    Args:
        faces: uint8 [N, S, S, 3] RGB, on which the file is compared with the model, both in fp32.
        threshold: that the file states; None: that of the model, if it has one.
        license: what may be done with the weights; None: what the model says.
        normalise: of ONNX, make (x - mean) / std a part of the graph.

    Raises:
        CheckpointError: the file does not compute what the model does; it is not left there.
        ConfigError: the model cannot be exported, or not like this.
        NonFiniteError: its own embeddings are no directions.
        WriteError: it cannot be written.
    """
    architecture = _check(model, output, form, normalise)
    if len(faces) == 0:
        raise DataError("there is no face to compare the exported model on")
    net = copy.deepcopy(model.net).float().cpu().eval().requires_grad_(False)
    card = _card(model, net, architecture, threshold, license)
    chunks: Iterable[bytes | memoryview] = (
        [onnx_bytes(net, card, normalise=normalise)] if form == "onnx" else bundle_chunks(net, card)
    )
    temporary = output.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        num_bytes = write_file(temporary, chunks).num_bytes
        least = _compare(load(temporary, device="cpu"), net, card, faces, output)
        disk.rename(temporary, output)
        disk.sync_directory(output.parent)
    except OSError as error:
        raise WriteError(output, error) from error
    finally:
        disk.discard(temporary)
    return Exported(output, card, num_bytes, least, len(faces))


def _compare(found: FaceModel, net: nn.Module, card: Card, faces: Tensor, output: Path) -> float:
    """The smallest cosine between the embeddings of a written model and of `net`.

    Raises:
        CheckpointError: it is too small.
    """
    feed = card.preprocessing
    wanted = make_embed_function(net, "cpu", flip=feed.flip, prepare=feed.apply)
    least = least_cosine(found.embed_batch, wanted, faces)
    if not least >= LEAST_COSINE:  # NaN too
        raise CheckpointError(
            f"{output} is not written: its embeddings differ from those of the trained net "
            f"(cosine {least:.6f}, expected at least {LEAST_COSINE}); please report this"
        )
    return least


def least_cosine(found: EmbedFunction, wanted: EmbedFunction, faces: Tensor) -> float:
    """The smallest cosine between two models' embeddings of `faces`, uint8 [N, S, S, 3]: of two
    batches of one, of two of three, and of all.

    Raises:
        NonFiniteError: an embedding of `wanted` has no direction.
    """
    expected = wanted(faces).double()  # [N, D]
    if not bool((expected.norm(dim=1) > 0.5).all()):  # NaN too; what overflows comes out as zeros
        raise NonFiniteError(
            "the trained net itself gives embeddings that are zero or not finite: it has overflowed"
        )
    worst = []
    for size in (*_BATCHES, len(faces)):
        some = faces[: 2 * size]
        got = torch.cat([found(part) for part in torch.split(some, size)]).double()
        worst.append(float((got * expected[: len(some)]).sum(dim=1).min()))
    return float(np.min(worst))  # min() would pass over NaN


def _check(model: FaceModel, output: Path, form: Form, normalise: bool) -> Architecture:
    if model.architecture is None:
        raise ConfigError(
            f"{model.name} cannot be exported: it is an ONNX file, or a net that is not of "
            "docs/backbones.md; export the run or the weights that it was made of"
        )
    if normalise and form != "onnx":
        raise ConfigError("the normalisation can be put into ONNX only; a bundle states it")
    if (output.parent / MANIFEST_NAME).exists():
        raise ConfigError(
            f"{output} would lie in the checkpoint {output.parent}, which would be refused then: "
            "choose another place"
        )
    if output.exists() and not output.is_file():
        raise ConfigError(f"{output} is a folder or a device; give the name of a file")
    return model.architecture


def _card(
    model: FaceModel,
    net: nn.Module,
    architecture: Architecture,
    threshold: Threshold | None,
    license: str | None,
) -> Card:
    weights = hash_of_tensors(net.state_dict())
    exported_by = {"manyface": manyface.__version__, "commit": commit()}
    return Card(
        name=model.name,
        architecture=architecture,
        preprocessing=model.preprocessing,
        weights=weights,
        fingerprint=fingerprint_of(weights, model.preprocessing),
        threshold=threshold or model.threshold,
        provenance={**model.provenance, "exported_by": exported_by},
        license=license if license is not None else model.license,
    )

"""A net as one ONNX file: any batch, input "data", output "embedding", the card in its metadata.

By torch's exporter for `torch.export` (dynamo): the older one is deprecated and warns. Opset 18 is
what that exporter writes without converting; ONNX Runtime has it since 1.14. The normalisation can
be part of the graph, as (x - mean) * (1 / std) in nodes that are called Sub and Mul: then
insightface's readers, which look for these names, feed grey levels too.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manyface.base.errors import CheckpointError
from manyface.model.card import KEY, Card
from manyface.model.onnx_read import LARGEST, hash_of_graph, of_extra
from manyface.model.preprocessing import Preprocessing

OPSET, IR_VERSION = 18, 8  # both of ONNX 1.13
INPUT, OUTPUT, BATCH = "data", "embedding", "batch"
_RAW = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class _Normalising(nn.Module):
    """Grey levels float32 [B, 3, S, S] -> embeddings [B, D]."""

    mean: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net = net
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            column = torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
            made = column if name == "mean" else 1 / column
            self.register_buffer("mean" if name == "mean" else "scale", made.float())

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.net((images - self.mean) * self.scale)
        return embeddings


def onnx_bytes(net: nn.Module, card: Card, *, normalise: bool = False) -> bytes:
    """The file of `net`, float32 on the CPU in evaluation mode; it is not changed.

    Args:
        card: says how the net is fed; with `normalise` the file says that it takes grey levels.

    Raises:
        MissingExtraError: onnx and onnxscript are not installed.
        CheckpointError: the net is too large for one ONNX file.
    """
    onnx, _ = of_extra("onnx"), of_extra("onnxscript")
    size = sum(v.numel() * v.element_size() for v in net.state_dict().values())
    if size > 0.98 * LARGEST:
        raise CheckpointError(
            f"the net has {size / 2**30:.1f} GiB of weights, an ONNX file holds 2 at most: use "
            "--format safetensors"
        )
    whole = _Normalising(net, card.preprocessing) if normalise else net
    proto = _exported(whole.eval(), card.preprocessing.image_size)
    if normalise:
        _name_first_nodes(proto.graph)
        feed = replace(card.preprocessing, mean=_RAW[0], std=_RAW[1])
        card = replace(card, preprocessing=feed)
    onnx.checker.check_model(proto)
    card = replace(card, graph=hash_of_graph(proto))
    onnx.helper.set_model_props(proto, {KEY: card.to_json()})
    proto.producer_name = "manyface"
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def opset_of(path: Path) -> int:
    """The opset of the ONNX file at `path`."""
    proto = of_extra("onnx").load(path, load_external_data=False)
    version: int = max(
        each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")
    )
    return version


def _exported(net: nn.Module, image_size: int) -> Any:
    example = torch.zeros(2, 3, image_size, image_size)  # a batch of 1 would be taken for fixed
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            net,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101  (so says torch, with dynamo)
    return _without_notes(program.model_proto)


def _without_notes(proto: Any) -> Any:
    """Take out what the exporter notes on every node: names and lines of our files, where they lie
    on this machine, shapes of all between. It would be as long as a small net."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del graph.value_info[:]
    proto.ir_version = IR_VERSION
    return proto


def _name_first_nodes(graph: Any) -> None:
    found = [node for node in graph.node[:8] if node.op_type in ("Sub", "Mul")][:2]
    for node in found:
        node.name = f"{node.op_type}_0"


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs and warns of its own inner workings, which nobody here can change."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)

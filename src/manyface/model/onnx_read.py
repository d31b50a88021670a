"""An ONNX file as a model, run by ONNX Runtime: ours, insightface's, anybody's of one face net.

What must be true of it: one input, float32 [B, 3, S, S], and one output, [B, D]. Names do not
matter. Ours say how they are fed; of others it is assumed as insightface's own reader does: RGB,
(x - 127.5) / 127.5, unless the graph begins by subtracting and multiplying itself (models that were
trained in mxnet), which then take the grey levels as they are.

Some files can take one image only, whatever they declare (a shape was fixed when they were
exported): that is tried out when they are opened, and such a file gets its images one by one.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor, nn

from manyface.base.errors import CheckpointError, MissingExtraError, one_line
from manyface.model.card import KEY, Card
from manyface.model.face_model import FaceModel
from manyface.model.preprocessing import Colour, Preprocessing

_AS_IT_IS = ("Identity", "Cast")
_OUTSIDE = "external data"
LARGEST = 2**31 - 1  # bytes of a protobuf message, and of the images of one batch


class OnnxNet(nn.Module):
    """A session of ONNX Runtime as a net: float32 [B, 3, S, S] -> float32 [B, D], on the CPU.

    Attributes:
        image_size: S.
        embedding_size: D.
        batch_size: images that a run takes, no more and no less; None: any number.
    """

    def __init__(self, session: Any, path: Path) -> None:
        super().__init__()
        self._session, self._path = session, path
        self._input, self.image_size, self.batch_size = _input_of(session, path)
        self._output = _output_of(session, path)
        self.embedding_size = self._try_out()

    def forward(self, images: Tensor) -> Tensor:
        """Of any number of images, those of a fixed batch in turn, the last one filled up."""
        pixels = images.contiguous().cpu().numpy()
        if self.batch_size is None or len(pixels) == self.batch_size:
            return torch.from_numpy(self._run(pixels))
        step = self.batch_size
        found = [
            self._run(_filled(pixels[k : k + step], step)) for k in range(0, len(pixels), step)
        ]
        return torch.from_numpy(np.concatenate(found)[: len(pixels)])

    def _run(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        try:
            (found,) = self._session.run([self._output], {self._input: pixels})
        except Exception as error:  # ONNX Runtime raises kinds of its own
            raise CheckpointError(f"{self._path} cannot be run: {one_line(error)}") from error
        return np.asarray(found, np.float32)

    def _try_out(self) -> int:
        """D; a file that fails with two images, or takes them for one, is given one at a time."""
        size = self.image_size
        number = self.batch_size or 2
        grey = np.zeros((number, 3, size, size), np.float32)
        grey[1:] += 0.5
        try:
            found = self._run(grey)
            good = found.ndim == 2 and len(found) == number
        except CheckpointError:
            if self.batch_size is not None:
                raise
            good = False
        if not good and self.batch_size is None:
            self.batch_size = 1
            found = self._run(grey[:1])
        if found.ndim != 2 or len(found) != (self.batch_size or number):
            raise CheckpointError(
                f"{self._path} gives {list(found.shape)} for {self.batch_size or number} images; "
                "expected one embedding each, [B, D]"
            )
        if not np.isfinite(found).all():
            raise CheckpointError(
                f"{self._path} gives NaN or infinity for a grey image: its weights are damaged"
            )
        return int(found.shape[1])


def open_onnx(path: Path, *, device: torch.device, colour: Colour | None = None) -> FaceModel:
    """The model in the ONNX file at `path`.

    Args:
        device: "cuda" is used where ONNX Runtime has it.
        colour: order of the channels that it takes; None: as it says itself, else RGB.

    Raises:
        MissingExtraError: onnx and onnxruntime are not installed.
        CheckpointError: it cannot be read, or is no net of faces.
    """
    try:
        return _open(path, device, colour)
    except UnicodeDecodeError as error:  # of a name, wherever it is read
        raise CheckpointError(f"{path} is damaged: {error}; get it again") from error


def _open(path: Path, device: torch.device, colour: Colour | None) -> FaceModel:
    proto, content = _parse(path)
    net = OnnxNet(_session(content, path, device), path)
    card = _card_of(proto, path)
    graph = hash_of_graph(proto)
    # A graph that was changed since is another model, fed alike.
    as_written = card if card is not None and card.graph == graph else None
    preprocessing = card.preprocessing if card else Preprocessing(net.image_size, **_feed(proto))
    if colour is not None and card is None:
        preprocessing = Preprocessing(net.image_size, colour, preprocessing.mean, preprocessing.std)
    _check_sizes(net, preprocessing, card, path)
    return FaceModel(
        net,
        name=card.name if card else path.stem,
        weights=as_written.weights if as_written else graph,
        fingerprint=as_written.fingerprint if as_written else None,
        embedding_size=net.embedding_size,
        preprocessing=preprocessing,
        device=torch.device("cpu"),
        threshold=as_written.threshold if as_written else None,
        provenance=card.provenance if card else {"file": path.name},
        license=card.license if card else None,
    )


def hash_of_graph(proto: Any) -> str:
    """Of the tensors in the graph, whatever order they are in, and of what its nodes do."""
    digest = xxhash.xxh3_128()
    for tensor in sorted(proto.graph.initializer, key=lambda each: each.name):
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}\n".encode())
        digest.update(tensor.raw_data or tensor.SerializeToString(deterministic=True))
    for node in proto.graph.node:
        digest.update(f"{node.op_type} {list(node.input)} {list(node.output)}\n".encode())
        for attribute in node.attribute:
            digest.update(attribute.SerializeToString(deterministic=True))
    return digest.hexdigest()


def of_extra(name: str) -> ModuleType:
    """A package of the extra onnx; MissingExtraError without it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, extra="onnx") from error


def _parse(path: Path) -> tuple[Any, bytes]:
    onnx = of_extra("onnx")
    if path.stat().st_size > LARGEST:
        raise CheckpointError(f"{path} is no ONNX file: it has more than the 2 GiB of one")
    try:
        content = path.read_bytes()
        proto = onnx.load_model_from_string(content)
        count = len(proto.graph.node)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:  # protobuf raises kinds of its own
        raise CheckpointError(
            f"{path} is no ONNX file, or damaged ({one_line(error)}); get it again"
        ) from error
    if count == 0:
        raise CheckpointError(f"{path} is no ONNX file of a net: it has no graph")
    if any(tensor.external_data for part in _parts(proto) for tensor in _tensors(part)):
        raise CheckpointError(
            f"{path} keeps its weights in other files ({_OUTSIDE}), which are not read: save it "
            "as one file"
        )
    return proto, content


def _parts(proto: Any) -> Iterator[Any]:
    """What has nodes."""
    yield proto.graph
    yield from proto.functions


def _tensors(part: Any) -> Iterator[Any]:
    """All in a graph or a function, in graphs that its nodes hold, too."""
    yield from getattr(part, "initializer", ())
    for sparse in getattr(part, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for attribute in (each for node in part.node for each in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)


def _session(content: bytes, path: Path, device: torch.device) -> Any:
    runtime = of_extra("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about graphs, not about us
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    here = set(runtime.get_available_providers())
    providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in here]
    try:
        # Its own second try prints to standard output.
        return runtime.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime raises kinds of its own
        raise CheckpointError(f"ONNX Runtime refuses {path}: {one_line(error)}") from error


def _input_of(session: Any, path: Path) -> tuple[str, int, int | None]:
    """Name, S and fixed batch of the only input."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise CheckpointError(
            f"{path} has {len(inputs)} inputs ({names}); expected one, the images"
        )
    (found,) = inputs
    shape = list(found.shape)
    square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3] and _fixed(shape[2])
    if not square or found.type != "tensor(float)":
        raise CheckpointError(
            f"{path} takes {found.name!r}, {found.type} {shape}; expected images in float32, "
            "[B, 3, S, S] with a fixed S"
        )
    batch = shape[0] if _fixed(shape[0]) else None
    if 12 * shape[2] ** 2 * (batch or 1) > LARGEST:
        raise CheckpointError(
            f"{path} takes {batch or 1} images of {shape[2]}x{shape[2]} pixels at once, more than "
            "2 GiB of them: this is no net of faces"
        )
    return found.name, shape[2], batch


def _output_of(session: Any, path: Path) -> str:
    outputs = session.get_outputs()
    if len(outputs) != 1:
        names = ", ".join(each.name for each in outputs)
        raise CheckpointError(
            f"{path} has {len(outputs)} outputs ({names}); expected one, the embeddings [B, D]"
        )
    name: str = outputs[0].name
    return name


def _fixed(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _card_of(proto: Any, path: Path) -> Card | None:
    texts = [each.value for each in proto.metadata_props if each.key == KEY]
    return Card.from_json(texts[0], where=str(path)) if texts else None


def _feed(proto: Any) -> Mapping[str, Any]:
    """Mean and std outside of the graph, of a file that does not say."""
    if not _normalises(proto.graph):
        return {}
    return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def _normalises(graph: Any) -> bool:
    """Whether the first thing that happens to the images is that a number is subtracted, and the
    result multiplied or divided."""
    weights = {tensor.name for tensor in graph.initializer}
    value = next(each.name for each in graph.input if each.name not in weights)
    expected: list[tuple[str, ...]] = [("Sub",), ("Mul", "Div")]
    for node in graph.node:
        if value not in node.input:
            continue
        if node.op_type in expected[0]:
            del expected[0]
        elif node.op_type not in _AS_IT_IS:
            return False
        if not expected:
            return True
        value = node.output[0]
    return False


def _check_sizes(net: OnnxNet, feed: Preprocessing, card: Card | None, path: Path) -> None:
    said = (feed.image_size, card.architecture.embedding_size if card else net.embedding_size)
    if said != (net.image_size, net.embedding_size):
        raise CheckpointError(
            f"{path} says that it makes {said[1]} values of {said[0]} pixels, but its graph makes "
            f"{net.embedding_size} of {net.image_size}: it was changed; export it again"
        )


def _filled(pixels: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """[b, ...] -> [count, ...], the last image repeated."""
    if len(pixels) == count:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], count - len(pixels), axis=0)])

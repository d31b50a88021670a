"""ONNX written and read: every net of the registry, and files of others, good and bad."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from random_model import DIM, SIZE, THRESHOLD, make_model

import manyface as mf
from manyface.backbones import BACKBONES, create_backbone
from manyface.backbones.ir import IRNet
from manyface.backbones.iresnet import IResNet
from manyface.backbones.mobilefacenet import MobileFaceNet
from manyface.backbones.recognise import architecture_of
from manyface.backbones.vit import VisionTransformer
from manyface.base.errors import (
    CheckpointError,
    ConfigError,
    ManyfaceError,
    MissingExtraError,
    NonFiniteError,
)
from manyface.base.random import numpy_generator
from manyface.model import FaceModel, Preprocessing
from manyface.model.export import LEAST_COSINE, export
from manyface.model.fingerprint import hash_of_tensors
from manyface.model.onnx_write import INPUT, OPSET, OUTPUT, opset_of
from manyface.testing.published import random_weights

SHALLOW: dict[type, dict[str, Any]] = {
    IResNet: {"depths": (1, 1, 2, 1)},
    IRNet: {"depths": (1, 1, 2, 1)},
    MobileFaceNet: {"blocks": (1, 1, 1, 1)},
    VisionTransformer: {"dim": 64, "depth": 2},
}


def model_of(net: torch.nn.Module, image_size: int, **options: Any) -> FaceModel:
    """`net` with weights as after a training: at first values deep nets overflow unless trained."""
    net.load_state_dict(random_weights({k: v.shape for k, v in net.state_dict().items()}))
    architecture = architecture_of(net.state_dict())
    assert architecture is not None
    return FaceModel(
        net.eval().requires_grad_(False),
        name="net",
        weights=hash_of_tensors(net.state_dict()),
        embedding_size=architecture.embedding_size,
        preprocessing=Preprocessing(image_size, **options),
        device=torch.device("cpu"),
        architecture=architecture,
    )


def some_faces(size: int, count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def check(model: FaceModel, size: int, path: Path, **options: Any) -> FaceModel:
    """Exports, opens and compares; by export itself, and once more here."""
    done = export(model, path, "onnx", some_faces(size), **options)
    assert done.least_cosine >= LEAST_COSINE
    found = mf.load(path)
    torch.testing.assert_close(
        found.embed_batch(some_faces(size, 2)), model.embed_batch(some_faces(size, 2)),
        rtol=0, atol=1e-4,
    )  # fmt: skip
    assert found.fingerprint == model.fingerprint
    assert found.net.batch_size is None, "any batch"
    return found


@pytest.mark.parametrize("name", ["tiny", "small", "mbf", "r18", "ir_18", "ir_se_50", "vit_t"])
def test_every_kind_of_net_at_small_depth(name: str, tmp_path: Path) -> None:
    options = SHALLOW.get(BACKBONES[name].func, {})
    net = create_backbone(name, embedding_size=24, image_size=48, **options)
    check(model_of(net, 48), 48, tmp_path / "net.onnx")
    assert opset_of(tmp_path / "net.onnx") == OPSET


# Minutes each: they are exported in full by `make soak`, and in part above.
DEEP = ("r34", "r100", "r200", "ir_34", "ir_50", "ir_101", "vit_s", "vit_b", "vit_l")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.soak) if each in DEEP else each
             for each in BACKBONES]
)  # fmt: skip
def test_every_net_as_it_is_registered(name: str, tmp_path: Path) -> None:
    check(model_of(create_backbone(name), 112), 112, tmp_path / "net.onnx")


@pytest.fixture(scope="session")
def exported_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("onnx") / "faces.onnx"
    return export(make_model(), path, "onnx", some_faces(SIZE)).path.read_bytes()


@pytest.fixture
def exported(exported_bytes, tmp_path) -> Path:
    """The ONNX file of `model`."""
    (tmp_path / "faces.onnx").write_bytes(exported_bytes)
    return tmp_path / "faces.onnx"


def test_what_is_written_is_read(model, faces, exported):
    found = mf.load(exported)
    for name in ("name", "fingerprint", "weights", "embedding_size", "preprocessing", "license"):
        assert getattr(found, name) == getattr(model, name), name
    assert found.threshold == THRESHOLD
    np.testing.assert_allclose(found.embed(faces), model.embed(faces), atol=1e-5)


def test_names_and_shapes(exported):
    graph = onnx.load(exported).graph
    dims = [
        [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.output)
    ]
    assert (graph.input[0].name, graph.output[0].name) == (INPUT, OUTPUT)
    assert dims == [["batch", 3, SIZE, SIZE], ["batch", DIM]]


def test_nothing_of_this_machine_is_in_it(exported):
    data = exported.read_bytes()
    assert str(Path(mf.__file__).parent).encode() not in data
    assert b"stack_trace" not in data


def test_normalisation_inside_of_the_graph(model, faces, tmp_path):
    found = check(model, SIZE, tmp_path / "raw.onnx", normalise=True)
    assert found.preprocessing.mean == (0.0,) * 3
    nodes = [node.name for node in onnx.load(tmp_path / "raw.onnx").graph.node[:2]]
    assert nodes == ["Sub_0", "Mul_0"], "where insightface's readers look"


def test_bgr_and_three_means(tmp_path):
    feed = Preprocessing(SIZE, "BGR", (1.0, 2.0, 3.0), (40.0, 50.0, 60.0), flip=False)
    for normalise in (False, True):
        check(make_model(preprocessing=feed), SIZE, tmp_path / "x.onnx", normalise=normalise)


def test_weights_that_were_changed_are_another_model(model, faces, exported):
    proto = onnx.load(exported)
    tensor = next(each for each in proto.graph.initializer if "fc" in each.name)
    tensor.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(proto, exported)
    found = mf.load(exported)
    assert found.fingerprint != model.fingerprint
    assert (found.threshold, found.license) == (None, model.license)


def test_an_attribute_that_was_changed_makes_another_model(model, exported):
    proto = onnx.load(exported)
    node = next(each for each in proto.graph.node if each.op_type == "Conv")
    next(each for each in node.attribute if each.name == "pads").ints[:] = [0, 0, 2, 2]
    onnx.save(proto, exported)
    found = mf.load(exported)
    assert found.fingerprint != model.fingerprint
    assert found.threshold is None


def test_a_file_that_computes_something_else_is_not_left_there(model, faces, tmp_path, monkeypatch):
    import manyface.model.export as place

    monkeypatch.setattr(place, "onnx_bytes", lambda net, card, normalise: wrong(model, faces))

    def wrong(model, faces):
        other = tmp_path / "elsewhere" / "other.onnx"
        monkeypatch.undo()
        return export(make_model(seed=2), other, "onnx", faces).path.read_bytes()

    (tmp_path / "x.onnx").write_bytes(b"before")
    with pytest.raises(
        CheckpointError, match=r"is not written: its embeddings differ .*cosine -?0"
    ):
        export(model, tmp_path / "x.onnx", "onnx", faces)
    assert (tmp_path / "x.onnx").read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"x.onnx", "elsewhere"}


def test_a_net_that_has_overflowed(model, faces, tmp_path):
    model.net.get_parameter("fc.weight").data[:] = 1e38
    with pytest.raises(NonFiniteError, match="the trained net itself gives embeddings"):
        export(model, tmp_path / "x", "safetensors", faces)
    assert list(tmp_path.iterdir()) == []


def test_exports_that_cannot_be(model, faces, tmp_path, exported):
    with pytest.raises(ConfigError, match="cannot be exported: it is an ONNX file"):
        export(mf.load(exported), tmp_path / "x", "safetensors", faces)
    with pytest.raises(ConfigError, match="into ONNX only"):
        export(model, tmp_path / "x", "safetensors", faces, normalise=True)
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match="is a folder or a device"):
            export(model, place, "onnx", faces)


# Files of others ----------------------------------------------------------------------------------


def foreign(
    path: Path,
    *,
    shape: tuple[Any, ...] = ("None", 3, SIZE, SIZE),
    first: tuple[str, ...] = (),
    kind: int = TensorProto.FLOAT,
    reshape: list[int] | None = None,
    extra_output: bool = False,
    extra_input: bool = False,
    outputs: tuple[Any, ...] = ("None", DIM),
    value: float = 0.01,
) -> Path:
    """A net of one matrix product, with nodes `first` before it."""
    nodes, weights, last = [], [], "input.1"
    for number, operation in enumerate(first):
        constant = np.array({"Sub": 127.5, "Mul": 1 / 128}.get(operation, 0), np.float32)
        inputs = [last]
        if operation in ("Sub", "Mul"):
            inputs.append(f"scalar{number}")
            weights.append(numpy_helper.from_array(constant, f"scalar{number}"))
        last = f"value{number}"
        nodes.append(helper.make_node(operation, inputs, [last]))
    if kind != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["cast"], to=TensorProto.FLOAT))
        last = "cast"
    if reshape is None:
        nodes.append(helper.make_node("Flatten", [last], ["flat"]))
    else:
        weights.append(numpy_helper.from_array(np.array(reshape, np.int64), "wanted"))
        nodes.append(helper.make_node("Reshape", [last, "wanted"], ["flat"]))
    matrix = np.random.default_rng(0).normal(0, value, (3 * SIZE * SIZE, DIM)).astype(np.float32)
    weights.append(numpy_helper.from_array(matrix, "matrix"))
    nodes.append(helper.make_node("MatMul", ["flat", "matrix"], ["fc1"]))
    found = [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, outputs)]
    if extra_output:
        nodes.append(helper.make_node("Abs", ["fc1"], ["norm"]))
        found.append(helper.make_tensor_value_info("norm", TensorProto.FLOAT, outputs))
    given = [helper.make_tensor_value_info("input.1", kind, shape)]
    if extra_input:
        given.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
        nodes.append(helper.make_node("Identity", ["mask"], ["unused"]))
    graph = helper.make_graph(nodes, "net", given, found, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(proto, path)
    return path


def linear(faces: torch.Tensor, mean: float, std: float) -> np.ndarray:
    """What `foreign` computes: photo and mirror image, added, of unit length."""
    matrix = np.random.default_rng(0).normal(0, 0.01, (3 * SIZE * SIZE, DIM))
    pixels = (faces.permute(0, 3, 1, 2).double().numpy() - mean) / std
    total = sum(x.reshape(len(x), -1) @ matrix for x in (pixels, pixels[..., ::-1]))
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def test_a_file_as_insightface_exports_it(faces, tmp_path):
    """Other names, a free batch, no word on how it is fed."""
    model = mf.load(foreign(tmp_path / "w600k.onnx"))
    assert (model.name, model.preprocessing) == ("w600k", Preprocessing(SIZE))
    np.testing.assert_allclose(model.embed(faces), linear(faces, 127.5, 127.5), atol=1e-5)
    bgr = mf.load(tmp_path / "w600k.onnx", colour="BGR")
    np.testing.assert_allclose(bgr.embed(faces.flip(-1)), model.embed(faces), atol=1e-6)


@pytest.mark.parametrize("first", [("Sub", "Mul"), ("Identity", "Sub", "Mul")])
def test_old_files_of_mxnet_normalise_themselves(faces, tmp_path, first):
    model = mf.load(foreign(tmp_path / "old.onnx", shape=(1, 3, SIZE, SIZE), first=first))
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(model.embed(faces), linear(faces, 127.5, 128), atol=1e-5)


@pytest.mark.parametrize("first", [("Sub",), ("Mul", "Sub"), ("Relu", "Sub", "Mul")])
def test_other_beginnings_are_no_normalisation(tmp_path, first):
    model = mf.load(foreign(tmp_path / "other.onnx", first=first))
    assert model.preprocessing.mean == (127.5,) * 3


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_fixed_batch_is_filled_up(faces, tmp_path, batch):
    model = mf.load(
        foreign(tmp_path / "x.onnx", shape=(batch, 3, SIZE, SIZE), outputs=(batch, DIM))
    )
    assert model.net.batch_size == batch
    np.testing.assert_allclose(model.embed(faces), linear(faces, 127.5, 127.5), atol=1e-5)
    assert len(model.embed(faces[:1])) == 1


@pytest.mark.parametrize("reshape", [[1, -1], [1, 3 * SIZE * SIZE]])
def test_a_batch_that_is_fixed_inside_is_found_out(faces, tmp_path, reshape):
    """As mobilefacenet.py was exported: the file promises any batch and takes one image."""
    model = mf.load(foreign(tmp_path / "x.onnx", reshape=reshape, outputs=("None", "D")))
    assert model.net.batch_size == 1
    np.testing.assert_allclose(model.embed(faces), linear(faces, 127.5, 127.5), atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shape": ("N", SIZE, SIZE, 3)}, r"takes 'input.1', tensor\(float\) .*expected images"),
        ({"shape": ("N", 1, SIZE, 3 * SIZE)}, r"\[B, 3, S, S\] with a fixed S"),
        ({"shape": ("N", 3, "H", "W")}, r"\[B, 3, S, S\] with a fixed S"),
        ({"shape": ("N", 3 * SIZE * SIZE)}, "expected images in float32"),
        ({"kind": TensorProto.UINT8}, r"takes 'input.1', tensor\(uint8\)"),
        ({"extra_input": True}, r"has 2 inputs \(input.1, mask\); expected one"),
        ({"extra_output": True}, r"has 2 outputs \(fc1, norm\); expected one"),
        ({"shape": ("N", 3, 30_000, 30_000), "reshape": [-1, 3072]}, "at once, more than 2 GiB"),
        (
            {"shape": (1 << 20, 3, SIZE, SIZE), "outputs": (1 << 20, DIM)},
            "at once, more than 2 GiB",
        ),
        ({"value": float("nan")}, "gives NaN or infinity for a grey image"),
        ({"reshape": [-1, 3 * SIZE * SIZE, 1]}, "cannot be run|ONNX Runtime refuses"),
        ({"reshape": [1, -1, 3 * SIZE * SIZE], "outputs": (1, "N", DIM)}, r"expected one embedd"),
    ],
)
def test_files_that_are_no_net_of_faces(tmp_path, options, message):
    path = foreign(tmp_path / "bad.onnx", **options)
    with pytest.raises(CheckpointError, match=message) as caught:
        mf.load(path)
    assert "\n" not in str(caught.value)


def test_weights_in_other_files_are_refused(tmp_path):
    proto = onnx.load(foreign(tmp_path / "x.onnx"))
    place = proto.graph.initializer[0].external_data.add()
    place.key, place.value = "location", "../secret.bin"
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    (tmp_path / "x.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match="keeps its weights in other files"):
        mf.load(tmp_path / "x.onnx")


def test_weights_in_other_files_are_found_inside_of_nodes_too(tmp_path):
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2])
    place = tensor.external_data.add()
    place.key, place.value = "location", "secret.bin"
    tensor.data_location = TensorProto.EXTERNAL
    constant = helper.make_node("Constant", [], ["inner"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], [])
    for node in (constant, helper.make_node("If", ["c"], ["o"], then_branch=branch)):
        proto = onnx.load(foreign(tmp_path / "x.onnx"))
        proto.graph.node.append(node)
        (tmp_path / "x.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(CheckpointError, match="keeps its weights in other files"):
            mf.load(tmp_path / "x.onnx")


@pytest.mark.parametrize("content", [b"", b"\x08", b"\x08\x07", b"\x08\x08garbage", b"hello" * 9])
def test_files_that_are_no_onnx(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x.onnx is no ONNX file") as caught:
        mf.load(tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_larger_than_one_can_be(tmp_path):
    with (tmp_path / "x.onnx").open("wb") as file:
        file.truncate(2**31)  # no byte of it is written
    with pytest.raises(CheckpointError, match="more than the 2 GiB"):
        mf.load(tmp_path / "x.onnx")


def test_a_file_that_was_cut_off(exported):
    for keep in (-1, -1000, 500):
        exported.write_bytes(exported.read_bytes()[:keep])
        with pytest.raises(CheckpointError):
            mf.load(exported)


def test_damaged_bytes_give_one_line(tmp_path, capfd):
    """Of names, shapes and operations; a file is opened, or refused in words of ours."""
    path = foreign(tmp_path / "x.onnx")
    good = path.read_bytes()
    first = numpy_helper.to_array(onnx.load(path).graph.initializer[0]).tobytes()
    start = good.index(first[:64])
    generator = numpy_generator(0, "damage")
    handled = 0
    for _ in range(100):
        damaged = bytearray(good)
        for place in generator.integers(len(good) - len(first), size=2).tolist():
            damaged[place + len(first) * (place >= start)] = int(generator.integers(256))
        path.write_bytes(damaged)
        try:
            mf.load(path)
        except ManyfaceError as error:
            handled += "\n" not in str(error)
        else:
            handled += 1
    assert handled == 100
    assert capfd.readouterr() == ("", "")


def test_a_card_of_another_net(exported, tmp_path):
    """The metadata of one file in another."""
    proto = onnx.load(foreign(tmp_path / "x.onnx", outputs=("N", DIM)))
    mine = onnx.load(exported).metadata_props[0]
    larger = mine.value.replace('"embedding_size": 16', '"embedding_size": 512')
    helper.set_model_props(proto, {mine.key: larger})
    onnx.save(proto, tmp_path / "x.onnx")
    with pytest.raises(
        CheckpointError, match=r"says that it makes 512 values .* its graph makes 16"
    ):
        mf.load(tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="says itself that its net takes RGB"):
        mf.load(exported, colour="BGR")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_the_extra(exported, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not .*pip install '.\[onnx\]'"):
        mf.load(exported)


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_export_without_the_extra(model, faces, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install '.\[onnx\]'"):
        export(model, tmp_path / "x.onnx", "onnx", faces)
    assert list(tmp_path.iterdir()) == []

"""Weights from files: what loads, and that everything else says clearly why not."""

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from manyface.backbones import Backbone, create_backbone, load_backbone_weights
from manyface.base.errors import CheckpointError
from manyface.base.random import numpy_generator

State = dict[str, Tensor]


def net(**options: Any) -> Backbone:
    return create_backbone("tiny", embedding_size=8, image_size=32, **options)


@pytest.fixture
def trained() -> State:
    return net(seed=9).state_dict()


def assert_loads(path: Path, expected: State) -> None:
    target = net(seed=1)
    load_backbone_weights(target, path)
    for name, value in target.state_dict().items():
        assert torch.equal(value, expected[name]), name


def message(path: Path, target: nn.Module | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_backbone_weights(net() if target is None else target, path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_safetensors(tmp_path: Path, trained: State) -> None:
    save_file(trained, tmp_path / "backbone.safetensors")
    assert_loads(tmp_path / "backbone.safetensors", trained)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_plain_state_dict(tmp_path: Path, trained: State, suffix: str) -> None:
    torch.save(trained, tmp_path / f"model{suffix}")
    assert_loads(tmp_path / f"model{suffix}", trained)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module.module.", "model.", "net."]
)
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, trained: State, prefix: str) -> None:
    torch.save({prefix + name: value for name, value in trained.items()}, tmp_path / "model.pt")
    assert_loads(tmp_path / "model.pt", trained)


def test_class_centers_beside_the_net_are_left_out(tmp_path: Path, trained: State) -> None:
    """As in the files of AdaFace, which hold a Lightning module."""
    state = {f"model.{name}": value for name, value in trained.items()}
    state["head.kernel"] = torch.zeros(8, 3)
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "adaface.ckpt")
    assert_loads(tmp_path / "adaface.ckpt", trained)


def test_what_a_file_is_its_bytes_say_not_its_name(tmp_path: Path, trained: State) -> None:
    save_file(trained, tmp_path / "model.pt")
    assert_loads(tmp_path / "model.pt", trained)


@pytest.mark.parametrize("key", ["state_dict_backbone", "state_dict", "model"])
def test_training_checkpoints_with_the_weights_inside(
    tmp_path: Path, trained: State, key: str
) -> None:
    content = {"epoch": 3, key: trained, "state_optimizer": {"param_groups": [{"lr": 0.1}]}}
    torch.save(content, tmp_path / "checkpoint_gpu_0.pt")
    assert_loads(tmp_path / "checkpoint_gpu_0.pt", trained)


def test_weights_without_batch_counts_and_in_half_precision(tmp_path: Path, trained: State) -> None:
    halves = {k: v.half() for k, v in trained.items() if not k.endswith("num_batches_tracked")}
    torch.save(halves, tmp_path / "model.pt")
    target = net(seed=1)
    load_backbone_weights(target, tmp_path / "model.pt")
    assert target.get_parameter("fc.weight").dtype == torch.float32
    assert torch.equal(target.get_parameter("fc.weight"), trained["fc.weight"].half().float())


def test_missing_and_unknown_names_are_counted_and_the_nearest_is_named(
    tmp_path: Path, trained: State
) -> None:
    trained["fc.wieght"] = trained.pop("fc.weight")
    del trained["stem.0.weight"]
    torch.save(trained, tmp_path / "model.pt")
    text = message(tmp_path / "model.pt")
    assert f"2 of {len(net().state_dict())} tensors missing (stem.0.weight, fc.weight)" in text
    assert "1 unknown (fc.wieght, nearest fc.weight)" in text


def test_another_embedding_or_image_size(tmp_path: Path, trained: State) -> None:
    torch.save(trained, tmp_path / "model.pt")
    other = create_backbone("tiny", embedding_size=16, image_size=48)
    text = message(tmp_path / "model.pt", other)
    assert "4 of another shape" not in text
    assert "of another shape (fc.weight: file [8, 512], net [16, 1152]" in text
    assert "check embedding_size and image_size" in text


def test_weights_of_another_net_say_which(tmp_path: Path) -> None:
    state = create_backbone("r18", embedding_size=4, image_size=16).state_dict()
    torch.save(state, tmp_path / "model.pt")
    assert "the names are those of backbone 'r18'" in message(tmp_path / "model.pt")


def test_a_failed_load_leaves_the_net_as_it_was(tmp_path: Path, trained: State) -> None:
    trained["fc.weight"] = trained["fc.weight"][:, :-1]
    torch.save(trained, tmp_path / "model.pt")
    target = net(seed=1)
    message(tmp_path / "model.pt", target)
    assert torch.equal(
        target.get_parameter("stem.0.weight"), net(seed=1).state_dict()["stem.0.weight"]
    )


class Payload:
    """Pickles to a call that would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_a_pickle_of_objects_is_refused_and_never_run(tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    torch.save({"weights": Payload(str(victim))}, tmp_path / "model.pt")
    assert "never executed" in message(tmp_path / "model.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(str(victim)), protocol=2))
    message(tmp_path / "plain.pt")
    assert not victim.exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\x00" * 64])
def test_files_that_hold_no_weights(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    message(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_file(tmp_path: Path, trained: State, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(trained, path)
    else:
        save_file(trained, path)
    path.write_bytes(path.read_bytes()[:-4000])
    assert "cannot read" in message(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_bytes(tmp_path: Path, trained: State, legacy: bool) -> None:
    """They lead torch.load to raise KeyError, IndexError, AssertionError, TypeError and others."""
    torch.save(trained, tmp_path / "good.pt", _use_new_zipfile_serialization=not legacy)
    good = (tmp_path / "good.pt").read_bytes()
    generator = numpy_generator(0, "damage")
    refused = 0
    for _ in range(60):
        damaged = bytearray(good)
        for place in generator.integers(6000, size=3):  # where the names and shapes are
            damaged[place] = int(generator.integers(256))
        (tmp_path / "bad.pt").write_bytes(damaged)
        with suppress(CheckpointError):
            load_backbone_weights(net(), tmp_path / "bad.pt")
            continue
        refused += 1
    assert refused > 10


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, torch.zeros(2), {1: torch.zeros(2)}])
def test_torch_files_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    assert "state_dict" in message(tmp_path / "model.pt")


def test_no_file_and_unknown_format(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "absent.pt")
    (tmp_path / "model.onnx").write_bytes(b"x")
    text = message(tmp_path / "model.onnx")
    assert "expected a file of safetensors or of torch, got one that begins with b'x'" in text


def test_a_compressed_file_is_refused_before_it_takes_memory(
    tmp_path: Path, trained: State
) -> None:
    torch.save(trained, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in plain.namelist():
            bomb.writestr(part, plain.read(part))
    assert "is compressed, which torch's files are not" in message(tmp_path / "bomb.pt")


def test_tensors_that_claim_more_than_the_file_holds(tmp_path: Path, trained: State) -> None:
    """One number, repeated: a terabyte in a file of a few thousand bytes."""
    trained["fc.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(trained, tmp_path / "model.pt")
    assert "and claims tensors of" in message(tmp_path / "model.pt")
    same = torch.zeros(10**6)
    torch.save({f"w{k}": same for k in range(100)}, tmp_path / "model.pt")
    assert "repeat themselves" in message(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.to(torch.float8_e4m3fn),
        lambda weight: weight.to(torch.complex64),
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to("meta"),
        lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    ],
    ids=["float8", "complex", "sparse", "meta", "quantised"],
)
@pytest.mark.filterwarnings("ignore")  # of torch, on quantised tensors
def test_tensors_of_another_kind(tmp_path: Path, trained: State, change: Any) -> None:
    trained["fc.weight"] = change(trained["fc.weight"])
    torch.save(trained, tmp_path / "model.pt")
    text = message(tmp_path / "model.pt")
    assert "fc.weight is a tensor of another kind" in text or "cannot read" in text


def test_whole_numbers_are_no_weights(tmp_path: Path, trained: State) -> None:
    """Quantised weights lie in files as bytes, and mean something only with their scales."""
    trained["fc.weight"] = trained["fc.weight"].to(torch.int8)
    torch.save(trained, tmp_path / "model.pt")
    assert "1 hold no floats (fc.weight: torch.int8)" in message(tmp_path / "model.pt")

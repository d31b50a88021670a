"""Files as insightface, AdaFace and CVLface publish them: every tensor matched, and the embeddings
of a transcription of the net, fed as its publisher feeds it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import manyface as mf
from manyface.base.errors import CheckpointError, ConfigError, NonFiniteError
from manyface.checkpoint import export_weights, save
from manyface.testing.published import PUBLISHED, Weights, random_weights

State = dict[str, Tensor]


def insightface(state: State, folder: Path) -> Path:
    """backbone.pth: the plain state_dict."""
    torch.save(state, folder / "backbone.pth")
    return folder / "backbone.pth"


def insightface_checkpoint(state: State, folder: Path) -> Path:
    """checkpoint_gpu_0.pt, of save_all_states."""
    content = {"epoch": 1, "global_step": 9, "state_dict_backbone": state}
    torch.save(content, folder / "checkpoint_gpu_0.pt")
    return folder / "checkpoint_gpu_0.pt"


def adaface(state: State, folder: Path) -> Path:
    """adaface_*.ckpt: what a Lightning module holds."""
    inside = {f"model.{name}": value for name, value in state.items()}
    inside |= {"head.kernel": torch.zeros(512, 10), "head.t": torch.zeros(1)}
    torch.save({"epoch": 25, "state_dict": inside}, folder / "adaface_ir.ckpt")
    return folder / "adaface_ir.ckpt"


def cvlface(state: State, folder: Path) -> Path:
    """model.pt in a folder of its own; no mask token where the training masked nothing."""
    state = {f"net.{name}": value for name, value in state.items() if name != "mask_token"}
    (folder / "cvlface_net").mkdir()
    torch.save(state, folder / "cvlface_net" / "model.pt")
    return folder / "cvlface_net"


Layout = Callable[[State, Path], Path]
CASES: list[tuple[str, Layout, str]] = [
    ("r18", insightface, "RGB"),
    ("mbf", insightface_checkpoint, "RGB"),
    ("ir_18", adaface, "BGR"),
    ("ir_18", cvlface, "RGB"),
    ("vit_t", insightface, "RGB"),
]
LARGE: list[tuple[str, Layout, str]] = [
    *((name, insightface, "RGB") for name in ("r34", "r50", "r100", "r200", "mbf_large")),
    *((name, insightface, "RGB") for name in ("vit_s", "vit_b", "vit_l")),
    *((name, adaface, "BGR") for name in ("ir_34", "ir_50", "ir_101", "ir_se_50")),
    *((name, cvlface, "RGB") for name in ("ir_50", "ir_101", "r50")),
    *((name, cvlface, "RGB") for name in ("cvlface vit small", "cvlface vit base")),
]


def faces(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 112, 112, 3), dtype=torch.uint8, generator=generator)


def expected_embeddings(name: str, state: State, images: Tensor, colour: str) -> Tensor:
    """By the transcription: photo and mirror image, added, of unit length."""
    fed = images.flip(-1) if colour == "BGR" else images
    pixels = (fed.permute(0, 3, 1, 2).float() - 127.5) / 127.5
    weights = Weights(state)
    with torch.no_grad():
        total = sum(PUBLISHED[name].compute(weights, p) for p in (pixels, pixels.flip(-1)))
    assert weights.read | PUBLISHED[name].unread == set(state)
    return torch.nn.functional.normalize(total, dim=1)


@pytest.mark.parametrize(
    "name, layout, colour",
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGE)],
)
def test_a_published_file(name: str, layout: Layout, colour: str, tmp_path: Path) -> None:
    state = random_weights(PUBLISHED[name].shapes)
    model = mf.load(layout(state, tmp_path), device="cpu")
    assert (model.embedding_size, model.image_size) == (512, 112)
    assert model.preprocessing.colour == colour
    for key, value in model.net.state_dict().items():
        if key not in PUBLISHED[name].unread:
            assert torch.equal(value, state[key]), key
    found = model.embed_batch(faces())
    expected = expected_embeddings(name, state, faces(), colour)
    assert (found - expected).abs().max() <= 1e-5


def test_colour_can_be_overruled(tmp_path: Path) -> None:
    path = adaface(random_weights(PUBLISHED["ir_18"].shapes), tmp_path)
    bgr, rgb = mf.load(path, device="cpu"), mf.load(path, device="cpu", colour="RGB")
    swapped = faces().flip(-1)
    assert torch.equal(bgr.embed_batch(faces()), rgb.embed_batch(swapped))
    assert (bgr.embed_batch(faces()) - rgb.embed_batch(faces())).abs().max() > 1e-3
    assert bgr.fingerprint != rgb.fingerprint
    assert bgr.name == "adaface_ir"


def test_weights_of_a_net_that_was_trained_here(tmp_path: Path) -> None:
    net = mf.create_backbone("tiny", embedding_size=8, image_size=32).eval()
    save_file(net.state_dict(), tmp_path / "lfw.safetensors")
    model = mf.load(tmp_path / "lfw.safetensors")
    pixels = np.full((1, 32, 32, 3), 200, np.uint8)
    with torch.no_grad():
        raw = 2 * net(torch.full((1, 3, 32, 32), (200 - 127.5) / 127.5))
    expected = torch.nn.functional.normalize(raw, dim=1).numpy()
    np.testing.assert_allclose(model.embed(pixels), expected, atol=1e-6)


def test_an_ir_net_of_checkpoint_export_is_fed_as_it_was_trained(tmp_path: Path) -> None:
    net = mf.create_backbone("ir_18", embedding_size=8, image_size=32, depths=(1, 1, 1, 1))
    path = save(tmp_path, step=1, tensors={"backbone": net.state_dict()}, state={})
    export_weights(path, tmp_path / "net.safetensors")
    assert mf.load(tmp_path / "net.safetensors").preprocessing.colour == "RGB"
    with pytest.raises(ConfigError, match="says itself that its net takes RGB"):
        mf.load(tmp_path / "net.safetensors", colour="BGR")


def test_a_tensor_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    state = random_weights(PUBLISHED["mbf"].shapes)
    state["features.layers.3.wieght"] = state.pop("features.layers.3.weight")
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors missing \(features.layers.3.wei"):
        mf.load(insightface(state, tmp_path))
    extra = {**random_weights(PUBLISHED["mbf"].shapes), "aux.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"1 unknown \(aux.weight"):
        mf.load(insightface(extra, tmp_path))


def test_embeddings_that_do_not_fit_the_net(tmp_path: Path) -> None:
    state = random_weights(PUBLISHED["mbf"].shapes)
    state["features.layers.3.bias"] = torch.zeros(256)
    with pytest.raises(CheckpointError, match=r"features.layers.3.bias: file \[256\], net \[512\]"):
        mf.load(insightface(state, tmp_path))


def test_weights_of_no_known_net(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="no net that is known here"):
        mf.load(tmp_path / "model.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = random_weights(PUBLISHED["mbf"].shapes)
    state["conv_sep.layers.0.weight"][7, 0, 0, 0] = value
    with pytest.raises(NonFiniteError, match=r"conv_sep.layers.0.weight holds NaN or infinity"):
        mf.load(insightface(state, tmp_path))


class Payload:
    """Pickles to a call that would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "anything", "adaface.ckpt"])
def test_a_pickle_with_code_in_it_is_never_run(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "executed"
    torch.save({"state_dict": {"a": Payload(str(victim))}}, tmp_path / name)
    with pytest.raises(CheckpointError, match="never executed") as caught:
        mf.load(tmp_path / name)
    assert not victim.exists()
    assert "\n" not in str(caught.value)

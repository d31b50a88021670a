"""Published weights must load: names, shapes and outputs against slow transcriptions.

The transcriptions are written from the published definitions (insightface arcface_torch) as plain
functions of a state_dict, without any module: each reads tensors by their published name. A net of
ours agrees when its state_dict has exactly these names and shapes and its output is the same.
"""

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from manyface.backbones import create_backbone

Shapes = dict[str, tuple[int, ...]]


class Weights:
    """A state_dict that notes which names were read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.state[name]

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        self.read.add(f"{name}.num_batches_tracked")
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, var = self[f"{name}.running_mean"], self[f"{name}.running_var"]
        scaled = (x - mean.view(shape)) / (var.view(shape) + eps).sqrt()
        return scaled * self[f"{name}.weight"].view(shape) + self[f"{name}.bias"].view(shape)

    def prelu(self, x: Tensor, name: str) -> Tensor:
        slope = self[f"{name}.weight"].view(1, -1, 1, 1)
        return torch.where(x > 0, x, slope * x)


def norm_shapes(name: str, width: int) -> Shapes:
    parts: Shapes = {f"{name}.{p}": (width,) for p in ("weight", "bias")}
    parts |= {f"{name}.{p}": (width,) for p in ("running_mean", "running_var")}
    return parts | {f"{name}.num_batches_tracked": ()}


# iResNet ------------------------------------------------------------------------------------------


def iresnet_shapes(depths: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)}
    shapes |= norm_shapes("bn1", 64)
    num_in = 64
    for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), start=1):
        for index in range(depth):
            block = f"layer{stage}.{index}"
            shapes |= norm_shapes(f"{block}.bn1", num_in)
            shapes[f"{block}.conv1.weight"] = (width, num_in, 3, 3)
            shapes |= norm_shapes(f"{block}.bn2", width)
            shapes[f"{block}.prelu.weight"] = (width,)
            shapes[f"{block}.conv2.weight"] = (width, width, 3, 3)
            shapes |= norm_shapes(f"{block}.bn3", width)
            if index == 0:
                shapes[f"{block}.downsample.0.weight"] = (width, num_in, 1, 1)
                shapes |= norm_shapes(f"{block}.downsample.1", width)
            num_in = width
    shapes |= norm_shapes("bn2", 512) | {"fc.weight": (512, 512 * 49), "fc.bias": (512,)}
    return shapes | norm_shapes("features", 512)


def iresnet_block(w: Weights, x: Tensor, name: str, *, stride: int) -> Tensor:
    out = F.conv2d(w.norm(x, f"{name}.bn1"), w[f"{name}.conv1.weight"], padding=1)
    out = w.prelu(w.norm(out, f"{name}.bn2"), f"{name}.prelu")
    out = F.conv2d(out, w[f"{name}.conv2.weight"], stride=stride, padding=1)
    out = w.norm(out, f"{name}.bn3")
    if stride == 2:
        x = F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=2)
        x = w.norm(x, f"{name}.downsample.1")
    return out + x


def iresnet(w: Weights, x: Tensor, depths: tuple[int, ...] = (2, 2, 2, 2)) -> Tensor:
    x = F.conv2d(x, w["conv1.weight"], padding=1)
    x = w.prelu(w.norm(x, "bn1"), "prelu")
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            x = iresnet_block(w, x, f"layer{stage}.{index}", stride=2 if index == 0 else 1)
    x = w.norm(x, "bn2").reshape(len(x), -1)
    return w.norm(x @ w["fc.weight"].T + w["fc.bias"], "features")


# MobileFaceNet ------------------------------------------------------------------------------------

# (place in `layers`, in, out, inner, stride, residual) of each inverted bottleneck of mbf
MBF_BOTTLENECKS = [
    ("layers.2", 128, 128, 128, 2, False),
    *((f"layers.3.layers.{i}", 128, 128, 128, 1, True) for i in range(4)),
    ("layers.4", 128, 256, 256, 2, False),
    *((f"layers.5.layers.{i}", 256, 256, 256, 1, True) for i in range(6)),
    ("layers.6", 256, 256, 512, 2, False),
    *((f"layers.7.layers.{i}", 256, 256, 256, 1, True) for i in range(2)),
]


def mbf_shapes() -> Shapes:
    def unit(name: str, conv: tuple[int, ...], *, prelu: bool = True) -> Shapes:
        shapes = {f"{name}.layers.0.weight": conv} | norm_shapes(f"{name}.layers.1", conv[0])
        return shapes | ({f"{name}.layers.2.weight": (conv[0],)} if prelu else {})

    shapes = unit("layers.0", (128, 3, 3, 3)) | unit("layers.1", (128, 2, 3, 3))
    for name, num_in, num_out, inner, _, _ in MBF_BOTTLENECKS:
        shapes |= unit(f"{name}.layers.0", (inner, num_in, 1, 1))
        shapes |= unit(f"{name}.layers.1", (inner, 1, 3, 3))
        shapes |= unit(f"{name}.layers.2", (num_out, inner, 1, 1), prelu=False)
    shapes |= unit("conv_sep", (512, 256, 1, 1))
    shapes |= unit("features.layers.0", (512, 1, 7, 7), prelu=False)
    return shapes | {"features.layers.2.weight": (512, 512)} | norm_shapes("features.layers.3", 512)


def mbf(w: Weights, x: Tensor) -> Tensor:
    def unit(
        x: Tensor, name: str, *, stride: int = 1, padding: int = 0, prelu: bool = True
    ) -> Tensor:
        kernel = w[f"{name}.layers.0.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, stride=stride, padding=padding, groups=groups)
        x = w.norm(x, f"{name}.layers.1")
        return w.prelu(x, f"{name}.layers.2") if prelu else x

    x = unit(unit(x, "layers.0", stride=2, padding=1), "layers.1", padding=1)
    for name, _, _, _, stride, residual in MBF_BOTTLENECKS:
        out = unit(x, f"{name}.layers.0")
        out = unit(out, f"{name}.layers.1", stride=stride, padding=1)
        out = unit(out, f"{name}.layers.2", prelu=False)
        x = x + out if residual else out
    x = unit(unit(x, "conv_sep"), "features.layers.0", prelu=False).reshape(len(x), -1)
    return w.norm(x @ w["features.layers.2.weight"].T, "features.layers.3")


# ViT ----------------------------------------------------------------------------------------------


def vit_shapes(dim: int, depth: int) -> Shapes:
    shapes: Shapes = {"pos_embed": (1, 144, dim), "mask_token": (1, 1, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, 9, 9), "patch_embed.proj.bias": (dim,)}
    for block in [f"blocks.{i}" for i in range(depth)]:
        shapes |= {f"{block}.norm{i}.{p}": (dim,) for i in (1, 2) for p in ("weight", "bias")}
        shapes |= {f"{block}.attn.qkv.weight": (3 * dim, dim)}
        shapes |= {f"{block}.attn.proj.weight": (dim, dim), f"{block}.attn.proj.bias": (dim,)}
        shapes |= {f"{block}.mlp.fc1.weight": (4 * dim, dim), f"{block}.mlp.fc1.bias": (4 * dim,)}
        shapes |= {f"{block}.mlp.fc2.weight": (dim, 4 * dim), f"{block}.mlp.fc2.bias": (dim,)}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,), "feature.0.weight": (dim, 144 * dim)}
    shapes |= norm_shapes("feature.1", dim) | {"feature.2.weight": (512, dim)}
    return shapes | norm_shapes("feature.3", 512)


def vit(w: Weights, x: Tensor, dim: int = 256, depth: int = 12) -> Tensor:
    def layer_norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(x: Tensor, name: str) -> Tensor:
        qkv = (x @ w[f"{name}.qkv.weight"].T).reshape(len(x), 144, 3, 8, dim // 8)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * (dim // 8) ** -0.5
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(len(x), 144, dim)
        return mixed @ w[f"{name}.proj.weight"].T + w[f"{name}.proj.bias"]

    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=9)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]
    for block in [f"blocks.{i}" for i in range(depth)]:
        x = x + attention(layer_norm(x, f"{block}.norm1"), f"{block}.attn")
        hidden = layer_norm(x, f"{block}.norm2") @ w[f"{block}.mlp.fc1.weight"].T
        hidden = (hidden + w[f"{block}.mlp.fc1.bias"]).clamp(0, 6)
        x = x + hidden @ w[f"{block}.mlp.fc2.weight"].T + w[f"{block}.mlp.fc2.bias"]
    x = layer_norm(x, "norm").reshape(len(x), -1) @ w["feature.0.weight"].T
    x = w.norm(x, "feature.1", eps=2e-5) @ w["feature.2.weight"].T
    return w.norm(x, "feature.3", eps=2e-5)


# Comparisons --------------------------------------------------------------------------------------

SHAPES: dict[str, Shapes] = {
    "r18": iresnet_shapes((2, 2, 2, 2)),
    "r34": iresnet_shapes((3, 4, 6, 3)),
    "r50": iresnet_shapes((3, 4, 14, 3)),
    "r100": iresnet_shapes((3, 13, 30, 3)),
    "r200": iresnet_shapes((6, 26, 60, 6)),
    "mbf": mbf_shapes(),
    "vit_t": vit_shapes(256, 12),
    "vit_s": vit_shapes(512, 12),
    "vit_b": vit_shapes(512, 24),
    "vit_l": vit_shapes(768, 24),
}


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    net = create_backbone(name, device="meta")
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == SHAPES[name]


def published_like(shapes: Shapes) -> dict[str, Tensor]:
    """Random weights of the given names: scales near 1, statistics away from the identity."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        elif len(shape) > 1:
            fan_in = shape[1:].numel() if isinstance(shape, torch.Size) else _product(shape[1:])
            state[name] = torch.randn(shape, generator=generator) / fan_in**0.5
        else:
            state[name] = torch.rand(shape, generator=generator) * 0.8 + 0.1
    return state


def _product(numbers: tuple[int, ...]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


@pytest.mark.parametrize("name, transcription", [("r18", iresnet), ("mbf", mbf), ("vit_t", vit)])
def test_outputs_are_those_of_the_transcription(
    name: str, transcription: Callable[[Weights, Tensor], Tensor]
) -> None:
    state = published_like(SHAPES[name])
    net = create_backbone(name).eval()
    net.load_state_dict(state, strict=True)
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    weights = Weights(state)
    with torch.no_grad():
        expected = transcription(weights, images)
        actual = net(images)
    assert weights.read | {"mask_token"} == set(state) | {"mask_token"}
    scale = expected.abs().max()
    assert scale > 0.1
    assert (actual - expected).abs().max() <= 1e-5 * scale

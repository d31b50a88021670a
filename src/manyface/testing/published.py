"""The published nets as plain functions of a state_dict, and the names and shapes of their files.

Written from the definitions that their publishers train with (insightface's arcface_torch; AdaFace;
CVLface), without any module: each function reads tensors by their published name and notes which. A
net of ours agrees when its state_dict has exactly these names and shapes, and its output is the
same. Images are float32 [B, 3, 112, 112] as the net is fed, embeddings [B, 512], not normalised.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Depths = tuple[int, ...]


class Weights:
    """A state_dict that notes which names were read."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.state[name]

    def norm(self, x: Tensor, name: str, eps: float = 1e-5, *, affine: bool = True) -> Tensor:
        """Batch norm by its running statistics."""
        self.read.add(f"{name}.num_batches_tracked")
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, var = self[f"{name}.running_mean"], self[f"{name}.running_var"]
        scaled = (x - mean.view(shape)) / (var.view(shape) + eps).sqrt()
        if not affine:
            return scaled
        return scaled * self[f"{name}.weight"].view(shape) + self[f"{name}.bias"].view(shape)

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        """Over the last dimension."""
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self[f"{name}.weight"] + self[f"{name}.bias"]

    def prelu(self, x: Tensor, name: str) -> Tensor:
        """[B, C, H, W], a slope for each channel."""
        slope = self[f"{name}.weight"].view(1, -1, 1, 1)
        return torch.where(x > 0, x, slope * x)


def norm_shapes(name: str, width: int, *, affine: bool = True) -> Shapes:
    """Of a batch norm."""
    parts: Shapes = {f"{name}.{p}": (width,) for p in ("weight", "bias") if affine}
    parts |= {f"{name}.{p}": (width,) for p in ("running_mean", "running_var")}
    return parts | {f"{name}.num_batches_tracked": ()}


# iResNet ------------------------------------------------------------------------------------------


def iresnet_shapes(depths: Depths) -> Shapes:
    """arcface_torch's iresnet.py."""
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


def _iresnet_block(w: Weights, x: Tensor, name: str, *, stride: int) -> Tensor:
    out = F.conv2d(w.norm(x, f"{name}.bn1"), w[f"{name}.conv1.weight"], padding=1)
    out = w.prelu(w.norm(out, f"{name}.bn2"), f"{name}.prelu")
    out = F.conv2d(out, w[f"{name}.conv2.weight"], stride=stride, padding=1)
    out = w.norm(out, f"{name}.bn3")
    if stride == 2:
        x = F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=2)
        x = w.norm(x, f"{name}.downsample.1")
    return out + x


def iresnet(w: Weights, x: Tensor, depths: Depths = (2, 2, 2, 2)) -> Tensor:
    """arcface_torch's iresnet.py."""
    x = F.conv2d(x, w["conv1.weight"], padding=1)
    x = w.prelu(w.norm(x, "bn1"), "prelu")
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            x = _iresnet_block(w, x, f"layer{stage}.{index}", stride=2 if index == 0 else 1)
    x = w.norm(x, "bn2").reshape(len(x), -1)
    return w.norm(x @ w["fc.weight"].T + w["fc.bias"], "features")


# IR -----------------------------------------------------------------------------------------------


def _ir_blocks(depths: Depths) -> list[tuple[int, int, int]]:
    """(channels in, out, stride) of each block."""
    found, num_in = [], 64
    for width, depth in zip((64, 128, 256, 512), depths, strict=True):
        for index in range(depth):
            found.append((num_in, width, 2 if index == 0 else 1))
            num_in = width
    return found


def ir_shapes(depths: Depths, *, squeeze: bool = False) -> Shapes:
    """AdaFace's net.py, CVLface's models/iresnet; `squeeze` is mode ir_se."""
    shapes: Shapes = {"input_layer.0.weight": (64, 3, 3, 3), "input_layer.2.weight": (64,)}
    shapes |= norm_shapes("input_layer.1", 64)
    for index, (num_in, width, _) in enumerate(_ir_blocks(depths)):
        block = f"body.{index}"
        if num_in != width:
            shapes[f"{block}.shortcut_layer.0.weight"] = (width, num_in, 1, 1)
            shapes |= norm_shapes(f"{block}.shortcut_layer.1", width)
        shapes |= norm_shapes(f"{block}.res_layer.0", num_in)
        shapes[f"{block}.res_layer.1.weight"] = (width, num_in, 3, 3)
        shapes |= norm_shapes(f"{block}.res_layer.2", width)
        shapes[f"{block}.res_layer.3.weight"] = (width,)
        shapes[f"{block}.res_layer.4.weight"] = (width, width, 3, 3)
        shapes |= norm_shapes(f"{block}.res_layer.5", width)
        if squeeze:
            shapes[f"{block}.res_layer.se_block.fc1.weight"] = (width // 16, width, 1, 1)
            shapes[f"{block}.res_layer.se_block.fc2.weight"] = (width, width // 16, 1, 1)
    shapes |= norm_shapes("output_layer.0", 512) | norm_shapes("output_layer.4", 512, affine=False)
    return shapes | {"output_layer.3.weight": (512, 512 * 49), "output_layer.3.bias": (512,)}


def _ir_block(
    w: Weights, x: Tensor, name: str, *, stride: int, widens: bool, squeeze: bool
) -> Tensor:
    out = F.conv2d(w.norm(x, f"{name}.res_layer.0"), w[f"{name}.res_layer.1.weight"], padding=1)
    out = w.prelu(w.norm(out, f"{name}.res_layer.2"), f"{name}.res_layer.3")
    out = F.conv2d(out, w[f"{name}.res_layer.4.weight"], stride=stride, padding=1)
    out = w.norm(out, f"{name}.res_layer.5")
    if squeeze:
        share = out.mean(dim=(2, 3))
        share = (share @ w[f"{name}.res_layer.se_block.fc1.weight"][:, :, 0, 0].T).clamp(min=0)
        share = (share @ w[f"{name}.res_layer.se_block.fc2.weight"][:, :, 0, 0].T).sigmoid()
        out = out * share[:, :, None, None]
    if not widens:
        return out + x[:, :, ::stride, ::stride]
    x = F.conv2d(x, w[f"{name}.shortcut_layer.0.weight"], stride=stride)
    return out + w.norm(x, f"{name}.shortcut_layer.1")


def ir(w: Weights, x: Tensor, depths: Depths = (2, 2, 2, 2), *, squeeze: bool = False) -> Tensor:
    """AdaFace's net.py before it divides by the norm; CVLface's models/iresnet."""
    x = F.conv2d(x, w["input_layer.0.weight"], padding=1)
    x = w.prelu(w.norm(x, "input_layer.1"), "input_layer.2")
    for index, (num_in, width, stride) in enumerate(_ir_blocks(depths)):
        widens = num_in != width
        x = _ir_block(w, x, f"body.{index}", stride=stride, widens=widens, squeeze=squeeze)
    x = w.norm(x, "output_layer.0").reshape(len(x), -1)
    x = x @ w["output_layer.3.weight"].T + w["output_layer.3.bias"]
    return w.norm(x, "output_layer.4", affine=False)


# MobileFaceNet ------------------------------------------------------------------------------------

# (name, channels in, out, inner, stride, residual) of an inverted bottleneck
_Bottleneck = tuple[str, int, int, int, int, bool]


def _bottlenecks(blocks: Depths, scale: int) -> list[_Bottleneck]:
    narrow, wide = 64 * scale, 128 * scale

    def stage(place: int, width: int, inner: int, depth: int) -> list[_Bottleneck]:
        return [(f"layers.{place}.layers.{i}", width, width, inner, 1, True) for i in range(depth)]

    return [
        *(stage(1, narrow, 128, blocks[0]) if blocks[0] > 1 else []),
        ("layers.2", narrow, narrow, 128, 2, False),
        *stage(3, narrow, 128, blocks[1]),
        ("layers.4", narrow, wide, 256, 2, False),
        *stage(5, wide, 256, blocks[2]),
        ("layers.6", wide, wide, 512, 2, False),
        *stage(7, wide, 256, blocks[3]),
    ]


def mbf_shapes(blocks: Depths = (1, 4, 6, 2), scale: int = 2) -> Shapes:
    """arcface_torch's mobilefacenet.py."""

    def unit(name: str, conv: tuple[int, ...], *, prelu: bool = True) -> Shapes:
        shapes = {f"{name}.layers.0.weight": conv} | norm_shapes(f"{name}.layers.1", conv[0])
        return shapes | ({f"{name}.layers.2.weight": (conv[0],)} if prelu else {})

    shapes = unit("layers.0", (64 * scale, 3, 3, 3))
    if blocks[0] == 1:
        shapes |= unit("layers.1", (64 * scale, scale, 3, 3))
    for name, num_in, num_out, inner, _, _ in _bottlenecks(blocks, scale):
        shapes |= unit(f"{name}.layers.0", (inner, num_in, 1, 1))
        shapes |= unit(f"{name}.layers.1", (inner, 1, 3, 3))
        shapes |= unit(f"{name}.layers.2", (num_out, inner, 1, 1), prelu=False)
    shapes |= unit("conv_sep", (512, 128 * scale, 1, 1))
    shapes |= unit("features.layers.0", (512, 1, 7, 7), prelu=False)
    return shapes | {"features.layers.2.weight": (512, 512)} | norm_shapes("features.layers.3", 512)


def mbf(w: Weights, x: Tensor, blocks: Depths = (1, 4, 6, 2), scale: int = 2) -> Tensor:
    """arcface_torch's mobilefacenet.py."""

    def unit(
        x: Tensor, name: str, *, stride: int = 1, padding: int = 0, prelu: bool = True
    ) -> Tensor:
        kernel = w[f"{name}.layers.0.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = F.conv2d(x, kernel, stride=stride, padding=padding, groups=groups)
        x = w.norm(x, f"{name}.layers.1")
        return w.prelu(x, f"{name}.layers.2") if prelu else x

    x = unit(x, "layers.0", stride=2, padding=1)
    if blocks[0] == 1:
        x = unit(x, "layers.1", padding=1)
    for name, _, _, _, stride, residual in _bottlenecks(blocks, scale):
        out = unit(x, f"{name}.layers.0")
        out = unit(out, f"{name}.layers.1", stride=stride, padding=1)
        out = unit(out, f"{name}.layers.2", prelu=False)
        x = x + out if residual else out
    x = unit(unit(x, "conv_sep"), "features.layers.0", prelu=False).reshape(len(x), -1)
    return w.norm(x @ w["features.layers.2.weight"].T, "features.layers.3")


# ViT ----------------------------------------------------------------------------------------------


def vit_shapes(dim: int, depth: int, *, patch: int = 9, ratio: int = 4) -> Shapes:
    """arcface_torch's vit.py; CVLface's with its patches and MLPs. `mask_token` is not in all files
    of the latter."""
    tokens, inner = (112 // patch) ** 2, ratio * dim
    shapes: Shapes = {"pos_embed": (1, tokens, dim), "mask_token": (1, 1, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    for block in [f"blocks.{i}" for i in range(depth)]:
        shapes |= {f"{block}.norm{i}.{p}": (dim,) for i in (1, 2) for p in ("weight", "bias")}
        shapes |= {f"{block}.attn.qkv.weight": (3 * dim, dim)}
        shapes |= {f"{block}.attn.proj.weight": (dim, dim), f"{block}.attn.proj.bias": (dim,)}
        shapes |= {f"{block}.mlp.fc1.weight": (inner, dim), f"{block}.mlp.fc1.bias": (inner,)}
        shapes |= {f"{block}.mlp.fc2.weight": (dim, inner), f"{block}.mlp.fc2.bias": (dim,)}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,), "feature.0.weight": (dim, tokens * dim)}
    shapes |= norm_shapes("feature.1", dim) | {"feature.2.weight": (512, dim)}
    return shapes | norm_shapes("feature.3", 512)


def _attention(w: Weights, x: Tensor, name: str, heads: int) -> Tensor:
    batch, tokens, dim = x.shape
    qkv = (x @ w[f"{name}.qkv.weight"].T).reshape(batch, tokens, 3, heads, dim // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)) * (dim // heads) ** -0.5
    mixed: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, dim)
    return mixed @ w[f"{name}.proj.weight"].T + w[f"{name}.proj.bias"]


def vit(w: Weights, x: Tensor, depth: int = 12, *, patch: int = 9, heads: int = 8) -> Tensor:
    """arcface_torch's vit.py, CVLface's models/vit, in evaluation."""
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]
    for block in [f"blocks.{i}" for i in range(depth)]:
        x = x + _attention(w, w.layer_norm(x, f"{block}.norm1"), f"{block}.attn", heads)
        hidden = w.layer_norm(x, f"{block}.norm2") @ w[f"{block}.mlp.fc1.weight"].T
        hidden = (hidden + w[f"{block}.mlp.fc1.bias"]).clamp(0, 6)
        x = x + hidden @ w[f"{block}.mlp.fc2.weight"].T + w[f"{block}.mlp.fc2.bias"]
    x = w.layer_norm(x, "norm").reshape(len(x), -1) @ w["feature.0.weight"].T
    x = w.norm(x, "feature.1", eps=2e-5) @ w["feature.2.weight"].T
    return w.norm(x, "feature.3", eps=2e-5)


# Table --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A net somebody publishes.

    Attributes:
        shapes: of the tensors of its file, without what stands before their names there.
        compute: its embeddings.
        unread: tensors of the file that take no part in them.
    """

    shapes: Shapes
    compute: Callable[[Weights, Tensor], Tensor]
    unread: frozenset[str] = field(default_factory=frozenset)


def _iresnet_of(depths: Depths) -> Published:
    return Published(iresnet_shapes(depths), partial(iresnet, depths=depths))


def _ir_of(depths: Depths, *, squeeze: bool = False) -> Published:
    shapes = ir_shapes(depths, squeeze=squeeze)
    return Published(shapes, partial(ir, depths=depths, squeeze=squeeze))


def _mbf_of(blocks: Depths, scale: int) -> Published:
    return Published(mbf_shapes(blocks, scale), partial(mbf, blocks=blocks, scale=scale))


def _vit_of(dim: int, depth: int, *, patch: int = 9, heads: int = 8, ratio: int = 4) -> Published:
    shapes = vit_shapes(dim, depth, patch=patch, ratio=ratio)
    compute = partial(vit, depth=depth, patch=patch, heads=heads)
    return Published(shapes, compute, frozenset({"mask_token"}))


PUBLISHED: Mapping[str, Published] = {
    "r18": _iresnet_of((2, 2, 2, 2)),
    "r34": _iresnet_of((3, 4, 6, 3)),
    "r50": _iresnet_of((3, 4, 14, 3)),
    "r100": _iresnet_of((3, 13, 30, 3)),
    "r200": _iresnet_of((6, 26, 60, 6)),
    "mbf": _mbf_of((1, 4, 6, 2), 2),
    "mbf_large": _mbf_of((2, 8, 12, 4), 4),
    "ir_18": _ir_of((2, 2, 2, 2)),
    "ir_34": _ir_of((3, 4, 6, 3)),
    "ir_50": _ir_of((3, 4, 14, 3)),
    "ir_101": _ir_of((3, 13, 30, 3)),
    "ir_se_50": _ir_of((3, 4, 14, 3), squeeze=True),
    "vit_t": _vit_of(256, 12),
    "vit_s": _vit_of(512, 12),
    "vit_b": _vit_of(512, 24),
    "vit_l": _vit_of(768, 24),
    "cvlface vit small": _vit_of(512, 12, patch=8, ratio=5),
    "cvlface vit base": _vit_of(512, 24, patch=8, heads=16, ratio=3),
}


def random_weights(shapes: Shapes, *, seed: int = 0) -> dict[str, Tensor]:
    """Weights of the given names: scales near 1, statistics away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        elif len(shape) > 1:
            fan_in = math.prod(shape[1:])
            state[name] = torch.randn(shape, generator=generator) / fan_in**0.5
        else:
            state[name] = torch.rand(shape, generator=generator) * 0.8 + 0.1
    return state

"""Which net a state_dict belongs to, found by the names and shapes of its tensors.

Files of weights do not say what they are of. Each family has a tensor that no other has; widths,
depths and sizes are read off shapes. What cannot be read off them (the heads of a transformer's
attention) is that of the published nets of this shape. Whether all tensors fit is for the loader:
here a wrong guess costs nothing but a message.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from manyface.backbones.base import SIZE_STEP, Backbone
from manyface.backbones.registry import BACKBONES, create_backbone

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """What `create_backbone` builds a net from.

    Attributes:
        name: in the registry.
        options: over those of the name; JSON can say them.
    """

    name: str
    embedding_size: int
    image_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, **more: Any) -> Backbone:
        """The net; `more` are other arguments of `create_backbone`, as `device`."""
        return create_backbone(
            self.name,
            embedding_size=self.embedding_size,
            image_size=self.image_size,
            **self.options,
            **more,
        )


def architecture_of(state: State) -> Architecture | None:
    """The net whose `state_dict` has these names and shapes; None if none is like it."""
    for mark, read in _FAMILIES.items():
        if mark in state:
            try:
                return read(state)
            except (KeyError, IndexError, ValueError, ZeroDivisionError):
                return None  # a tensor that belongs to this family is missing, or has no such shape
    return None


def _iresnet(state: State) -> Architecture:
    depths = tuple(_count(state, f"layer{stage}.") for stage in (1, 2, 3, 4))
    embedding_size, num_features = state["fc.weight"].shape
    size = SIZE_STEP * _root(num_features / state["layer4.0.conv1.weight"].shape[0])
    return _named({"depths": depths}, "r18", embedding_size, size)


def _ir(state: State) -> Architecture:
    outputs = [
        state[f"body.{index}.res_layer.1.weight"].shape[0]
        for index in range(_count(state, "body."))
    ]
    depths = tuple(outputs.count(width) for width in sorted(set(outputs)))
    embedding_size, num_features = state["output_layer.3.weight"].shape
    size = SIZE_STEP * _root(num_features / outputs[-1])
    options: dict[str, Any] = {"depths": depths}
    if "body.0.res_layer.se_block.fc1.weight" in state:
        options["squeeze"] = True
    return _named(options, "ir_18", embedding_size, size)


def _mobilefacenet(state: State) -> Architecture:
    scale = state["layers.0.layers.0.weight"].shape[0] // 64
    first = 1 if "layers.1.layers.0.weight" in state else _count(state, "layers.1.layers.")
    blocks = (first, *(_count(state, f"layers.{place}.layers.") for place in (3, 5, 7)))
    embedding_size = state["features.layers.2.weight"].shape[0]
    size = SIZE_STEP * state["features.layers.0.layers.0.weight"].shape[2]
    return _named({"blocks": blocks, "scale": scale}, "mbf", embedding_size, size)


def _vision_transformer(state: State) -> Architecture:
    _, num_tokens, dim = state["pos_embed"].shape
    depth, patch = _count(state, "blocks."), state["patch_embed.proj.weight"].shape[2]
    ratio = state["blocks.0.mlp.fc1.weight"].shape[0] // dim
    options: dict[str, Any] = {"dim": dim, "depth": depth}
    if (patch, ratio) != (9, 4):  # CVLface's two, of which the larger has 16 heads
        options |= {"patch_size": patch, "mlp_ratio": ratio}
        options["num_heads"] = 16 if (dim, depth) == (512, 24) else 8
    least = patch * _root(num_tokens)
    size = next(s for s in range(least, least + patch) if s % SIZE_STEP == 0)
    return _named(options, "vit_t", state["feature.2.weight"].shape[0], size)


def _small(state: State) -> Architecture:
    num_stages = _count(state, "stages.")
    widths = tuple(state[f"stages.{stage}.0.0.weight"].shape[0] for stage in range(num_stages))
    depths = tuple(_count(state, f"stages.{stage}.") - 1 for stage in range(num_stages))
    options = {"stem_width": state["stem.0.weight"].shape[0], "widths": widths, "depths": depths}
    if "stem.2.weight" not in state:
        options["activation"] = "relu"
    embedding_size, num_features = state["fc.weight"].shape
    side = _root(num_features / widths[-1])
    return _named(options, "tiny", embedding_size, side << (1 + num_stages))


# A tensor that only this family has -> how its net is read off the shapes.
_FAMILIES: Mapping[str, Callable[[State], Architecture]] = {
    "layer1.0.conv1.weight": _iresnet,
    "input_layer.0.weight": _ir,
    "conv_sep.layers.0.weight": _mobilefacenet,
    "patch_embed.proj.weight": _vision_transformer,
    "stem.0.weight": _small,
}


def _named(
    options: dict[str, Any], family: str, embedding_size: int, image_size: int
) -> Architecture:
    """The name of the registry that means these options, or any of the family and the options."""
    kind = BACKBONES[family].func
    for name, builder in BACKBONES.items():
        own = {key: value for key, value in builder.keywords.items() if key in options}
        if builder.func is kind and own == options:
            return Architecture(name, embedding_size, image_size)
    return Architecture(family, embedding_size, image_size, options)


def _count(state: State, prefix: str) -> int:
    """How many numbers follow `prefix` in names; they run from 0."""
    return len(
        {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    )


def _root(number: float) -> int:
    root = math.isqrt(round(number))
    if root < 1 or root * root != number:
        raise ValueError(number)
    return root

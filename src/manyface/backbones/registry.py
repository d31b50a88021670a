"""The nets by name, and the one function that builds them.

Every name that insightface or AdaFace uses for a published net means that net here. Options beyond
a name's own values (dropout, activation checkpointing, depths ...) are keyword arguments of its
class.
"""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from manyface.backbones.base import Backbone
from manyface.backbones.initialise import initialise
from manyface.backbones.ir import IRNet
from manyface.backbones.iresnet import IResNet
from manyface.backbones.mobilefacenet import MobileFaceNet
from manyface.backbones.small import SmallNet
from manyface.backbones.vit import VisionTransformer
from manyface.base.errors import ConfigError

Builder = partial[Any]  # of the class of a net

BACKBONES: Mapping[str, Builder] = MappingProxyType(
    {
        "tiny": partial(SmallNet, stem_width=16, widths=(32, 64, 128), depths=(1, 1, 1)),
        "small": partial(SmallNet, stem_width=32, widths=(64, 128, 256), depths=(1, 1, 1)),
        "mbf": partial(MobileFaceNet, blocks=(1, 4, 6, 2), scale=2),
        "mbf_large": partial(MobileFaceNet, blocks=(2, 8, 12, 4), scale=4),
        "r18": partial(IResNet, depths=(2, 2, 2, 2)),
        "r34": partial(IResNet, depths=(3, 4, 6, 3)),
        "r50": partial(IResNet, depths=(3, 4, 14, 3)),
        "r100": partial(IResNet, depths=(3, 13, 30, 3)),
        "r200": partial(IResNet, depths=(6, 26, 60, 6)),
        "ir_18": partial(IRNet, depths=(2, 2, 2, 2)),
        "ir_34": partial(IRNet, depths=(3, 4, 6, 3)),
        "ir_50": partial(IRNet, depths=(3, 4, 14, 3)),
        "ir_101": partial(IRNet, depths=(3, 13, 30, 3)),
        "ir_se_50": partial(IRNet, depths=(3, 4, 14, 3), squeeze=True),
        "vit_mini": partial(
            VisionTransformer, dim=128, depth=4, patch_size=4, num_heads=8, mlp_ratio=4
        ),
        "vit_t": partial(VisionTransformer, dim=256, depth=12, drop_path=0.1, mask_ratio=0.1),
        "vit_s": partial(VisionTransformer, dim=512, depth=12, drop_path=0.1, mask_ratio=0.1),
        "vit_b": partial(VisionTransformer, dim=512, depth=24, drop_path=0.1, mask_ratio=0.1),
        "vit_l": partial(VisionTransformer, dim=768, depth=24, drop_path=0.05, mask_ratio=0.05),
    }
)


def create_backbone(
    name: str,
    *,
    embedding_size: int = 512,
    image_size: int = 112,
    seed: int = 0,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Backbone:
    """A net of the registry: float32 images [B, 3, S, S] -> embeddings [B, D], not normalised.

    Args:
        seed: first values are a function of it and of parameter names; global state is not touched.
        device: where the net ends up; "meta" gives shapes without memory or values.
        options: arguments of the net's class, over those of its name.
    """
    builder = _find(name)
    _check_options(name, builder, options)
    with torch.device("meta"):
        net: Backbone = builder(embedding_size=embedding_size, image_size=image_size, **options)
    if torch.device(device).type == "meta":
        return net
    net.to_empty(device="cpu")
    initialise(net, net.first_values, seed=seed)
    net.initialise_rest()
    return net.to(device)


def _find(name: str) -> Builder:
    if name in BACKBONES:
        return BACKBONES[name]
    raise ConfigError(
        f"unknown backbone {name!r}{_nearest(name, list(BACKBONES))}; "
        f"there are: {', '.join(BACKBONES)}"
    )


def _check_options(name: str, builder: Builder, options: Mapping[str, Any]) -> None:
    known = list(inspect.signature(builder).parameters)
    for option in options:
        if option not in known:
            raise ConfigError(
                f"backbone {name!r} has no option {option!r}{_nearest(option, known)}; "
                f"it takes: {', '.join(known)}"
            )


def _nearest(word: str, known: list[str]) -> str:
    matches = get_close_matches(word, known, n=1, cutoff=0.4)
    return f" (nearest: {matches[0]!r})" if matches else ""

"""Names, options and sizes: what is refused, and how clearly."""

import re
from typing import Any

import pytest
import torch

from manyface.backbones import create_backbone
from manyface.backbones.small import SmallNet
from manyface.base.errors import ConfigError, DataError


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("r51", {}, "unknown backbone 'r51' (nearest: 'r50')"),
        ("smal", {}, "nearest: 'small'"),
        ("r50", {"droput": 0.1}, "has no option 'droput' (nearest: 'dropout')"),
        ("r50", {"mask_ratio": 0.1}, "backbone 'r50' has no option 'mask_ratio'"),
        ("r18", {"image_size": 100}, "multiple of 16, got 100; the nearest is 96"),
        ("r18", {"image_size": 0}, "multiple of 16, got 0; the nearest is 16"),
        ("r18", {"embedding_size": 0}, "at least 1, got 0"),
        ("r18", {"dropout": 1.0}, "backbone.dropout must be at least 0 and below 1, got 1.0"),
        ("vit_t", {"mask_ratio": -0.1}, "backbone.mask_ratio must be"),
        ("vit_t", {"drop_path": 1.5}, "backbone.drop_path must be"),
        ("tiny", {"widths": (8, 16)}, "3 stages"),
        ("tiny", {"activation": "gelu"}, "one of prelu, relu, got 'gelu'"),
    ],
)
def test_mistakes_get_one_clear_line(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        create_backbone(name, **options)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_are_refused() -> None:
    net = create_backbone("tiny", image_size=64, device="meta")
    with pytest.raises(DataError, match=r"\[B, 3, 64, 64\], got \[2, 3, 112, 112\]"):
        net(torch.empty(2, 3, 112, 112, device="meta"))


def test_small_nets_take_plain_widths_and_depths() -> None:
    net = create_backbone(
        "small", image_size=64, stem_width=8, widths=(8, 16, 24), depths=(1, 0, 2), device="meta"
    )
    assert isinstance(net, SmallNet)
    assert net.fc.weight.shape == (512, 24 * 4 * 4)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 1 + 3 + 2 * 3


def test_end_weight_is_frozen_at_one_as_published() -> None:
    for name in ("r18", "tiny"):
        weight = create_backbone(name, image_size=16).get_parameter("features.weight")
        assert not weight.requires_grad
        assert torch.equal(weight, torch.ones_like(weight))

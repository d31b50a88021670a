"""What a net costs: parameters and multiply-accumulates, counted without allocating the net."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from manyface.backbones.registry import create_backbone


@dataclass(frozen=True)
class BackboneCost:
    """Parameters (frozen ones too) and multiply-accumulates of one image's forward pass.

    MACs count convolutions and matrix products only. They say little about speed on their own: a
    depthwise convolution or a batch norm is bound by memory (docs/backbones.md has measured rates).
    """

    num_parameters: int
    macs_per_image: int


def backbone_cost(
    name: str, *, embedding_size: int = 512, image_size: int = 112, **options: Any
) -> BackboneCost:
    """Cost of the net in inference (no token masking), at any size, on the meta device."""
    net = create_backbone(
        name, embedding_size=embedding_size, image_size=image_size, device="meta", **options
    ).eval()
    images = torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(images)
    return BackboneCost(
        num_parameters=sum(parameter.numel() for parameter in net.parameters()),
        macs_per_image=counter.get_total_flops() // 2,
    )

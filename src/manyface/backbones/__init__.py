"""Nets that turn a face image into an embedding, their first values, weights, cost and average."""

from manyface.backbones.base import Backbone
from manyface.backbones.cost import BackboneCost, backbone_cost
from manyface.backbones.ema import AveragedNet
from manyface.backbones.load import load_backbone_weights
from manyface.backbones.registry import BACKBONES, create_backbone

__all__ = [
    "BACKBONES",
    "AveragedNet",
    "Backbone",
    "BackboneCost",
    "backbone_cost",
    "create_backbone",
    "load_backbone_weights",
]

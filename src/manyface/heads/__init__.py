"""Heads: embeddings and labels to a loss, and class centers, or a pool of features, that follow."""

from manyface.heads.base import CenterHead
from manyface.heads.f2c import F2C
from manyface.heads.full import FullFC
from manyface.heads.partial import PartialFC
from manyface.heads.pool import DynamicClassPool
from manyface.heads.virtual import VirtualFC

__all__ = ["F2C", "CenterHead", "DynamicClassPool", "FullFC", "PartialFC", "VirtualFC"]

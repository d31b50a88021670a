"""Heads: embeddings and labels to a loss, and class centers that learn from it."""

from manyface.heads.base import CenterHead
from manyface.heads.full import FullFC
from manyface.heads.partial import PartialFC

__all__ = ["CenterHead", "FullFC", "PartialFC"]

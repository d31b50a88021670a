"""Heads: embeddings and labels to a loss, and class centers, or a pool of features, that follow."""

from manyface.heads.balanced import ClassBalanced, balance_weights
from manyface.heads.base import CenterHead
from manyface.heads.f2c import F2C
from manyface.heads.full import FullFC
from manyface.heads.hard import HardNegatives
from manyface.heads.partial import PartialFC
from manyface.heads.pool import DynamicClassPool
from manyface.heads.sampling import FullyRandom, RowSampler, Strata, Uniform
from manyface.heads.several import SeveralHeads
from manyface.heads.virtual import VirtualFC

__all__ = [
    "CenterHead",
    "FullFC",
    "PartialFC",
    "RowSampler",
    "Uniform",
    "FullyRandom",
    "Strata",
    "ClassBalanced",
    "balance_weights",
    "HardNegatives",
    "F2C",
    "DynamicClassPool",
    "VirtualFC",
    "SeveralHeads",
]

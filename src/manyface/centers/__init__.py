"""Class centers: rows with their optimizer state, updated only where they took part."""

from manyface.centers.adamw import RowAdamW
from manyface.centers.lazy import RowOptimizer
from manyface.centers.place import InFiles, InMemory, Place
from manyface.centers.read_ahead import RowBlocks
from manyface.centers.sgd import RowSGD
from manyface.centers.table import ActiveRows, CenterTable

__all__ = [
    "ActiveRows",
    "CenterTable",
    "InFiles",
    "InMemory",
    "Place",
    "RowAdamW",
    "RowBlocks",
    "RowOptimizer",
    "RowSGD",
]

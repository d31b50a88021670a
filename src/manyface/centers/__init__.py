"""Class centers: rows with their optimizer state, updated only where they took part."""

from manyface.centers.optim import RowSGD
from manyface.centers.table import ActiveRows, CenterTable

__all__ = ["ActiveRows", "CenterTable", "RowSGD"]

"""Kernels in Triton; importing this needs triton and a GPU, or TRITON_INTERPRET=1."""

from manyface.kernels.gpu.numerators import numerators
from manyface.kernels.gpu.row_update import update_rows

__all__ = ["numerators", "update_rows"]

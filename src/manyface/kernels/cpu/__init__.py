"""Kernels in C++, compiled on the machine that runs them; see `rows.cpp` and `build`."""

from manyface.kernels.cpu.build import library
from manyface.kernels.cpu.calls import inverse_lengths, numerators, tangent_part, update_rows

__all__ = ["inverse_lengths", "library", "numerators", "tangent_part", "update_rows"]

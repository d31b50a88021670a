"""Measurements of this machine: time and memory of a step of every head, side by side."""

from manyface.bench.methods import METHODS, methods_here
from manyface.bench.shape import Shape
from manyface.bench.side_by_side import Job, compare

__all__ = ["METHODS", "Job", "Shape", "compare", "methods_here"]

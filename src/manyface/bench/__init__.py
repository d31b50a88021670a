"""Measurements of this machine: steps of heads and of whole trainings, side by side."""

from manyface.bench.combinations import TrainingJob, compare_trainings
from manyface.bench.methods import METHODS, methods_here
from manyface.bench.shape import Shape
from manyface.bench.side_by_side import Job, compare
from manyface.bench.training import TrainingOptions

__all__ = [
    "METHODS",
    "Job",
    "Shape",
    "TrainingJob",
    "TrainingOptions",
    "compare",
    "compare_trainings",
    "methods_here",
]

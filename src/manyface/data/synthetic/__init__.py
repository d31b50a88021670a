"""Procedural faces: identity in geometry and marks, everything else changes between pictures."""

from manyface.data.synthetic.difficulty import DIFFICULTIES, Difficulty, find_difficulty
from manyface.data.synthetic.source import SyntheticFaces

__all__ = ["DIFFICULTIES", "Difficulty", "SyntheticFaces", "find_difficulty"]

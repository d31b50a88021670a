"""Trained nets in use: opened from whatever file they are in, and written for other programs."""

from manyface.model.face_model import FaceModel
from manyface.model.open import load
from manyface.model.preprocessing import Preprocessing
from manyface.model.threshold import Threshold, threshold_at_far

__all__ = ["FaceModel", "Preprocessing", "Threshold", "load", "threshold_at_far"]

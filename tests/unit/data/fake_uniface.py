"""A module with the interface of uniface, as far as it is used: names, arguments, types."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np


class Weights(Enum):
    MNET_V2 = "retinaface_mnet_v2"


@dataclass(slots=True)
class Face:
    """Attributes: float32 [4] (x1, y1, x2, y2), 0 to 1, float32 [5, 2]."""

    bbox: np.ndarray
    confidence: float
    landmarks: np.ndarray


def module(find: Callable[[np.ndarray], list[np.ndarray]]) -> ModuleType:
    """`uniface`, whose detector finds the landmarks that `find` gives for the BGR image."""

    class RetinaFace:
        def __init__(
            self,
            *,
            model_name: Weights = Weights.MNET_V2,
            confidence_threshold: float = 0.5,
            nms_threshold: float = 0.4,
            input_size: tuple[int, int] = (640, 640),
            providers: list[str] | None = None,
            **options: Any,
        ) -> None:
            pass

        def detect(
            self,
            image: np.ndarray,
            *,
            max_num: int = 0,
            metric: str = "max",
            center_weight: float = 2.0,
        ) -> list[Face]:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
            if not image.flags.c_contiguous:
                raise ValueError("OpenCV takes contiguous images")
            return [
                Face(
                    bbox=np.array([*points.min(0), *points.max(0)], np.float32),
                    confidence=float(np.float32(0.9)),
                    landmarks=points.astype(np.float32),
                )
                for points in find(image)
            ]

    found = ModuleType("uniface")
    found.RetinaFace = RetinaFace  # type: ignore[attr-defined]
    return found

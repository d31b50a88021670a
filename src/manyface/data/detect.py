"""Landmarks from a detector that the user has: any function with the shape of `Detector`.

manyface finds no faces itself. By name it knows `uniface` (RetinaFace on ONNX Runtime, kept up;
it fetches its weights on first use); everything else is given as
"package.module:function". Neither is imported before it is asked for.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, DataError, ManyfaceError
from manyface.data.align import NUM_POINTS, FindPoints, FloatArray, UInt8Array

Face = Literal["largest", "central"]
FACES: tuple[Face, ...] = get_args(Face)


class Detector(Protocol):
    """Finds the faces of a photo."""

    def __call__(self, image: UInt8Array, /) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        """uint8 [H, W, 3] RGB -> points [n, 5, 2] (x, y; align.py's order) and scores [n]."""
        ...


def load_detector(name: str) -> Detector:
    """The detector called `name`: "uniface", or "package.module:function".

    Raises:
        ConfigError: it is not there.
    """
    if name in _KNOWN:
        return _KNOWN[name]()
    module_name, colon, function = name.partition(":")
    if not colon:
        raise ConfigError(
            f"no detector is called {name!r}; known: {', '.join(_KNOWN)}; or give a function of "
            "yours as package.module:function"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `python -m` has it, and a console script has not
    remedy = f"pip install {module_name}, or go to the folder that it lies in"
    found = getattr(_imported(module_name, remedy), function, None)
    if not callable(found):
        raise ConfigError(f"{module_name} has no function {function!r}; it is to take an image")
    detector: Detector = found
    return detector


def detect_face(detector: Detector, image: UInt8Array, *, face: Face = "largest") -> FloatArray:
    """Landmarks float64 [5, 2] of one face of a photo.

    Args:
        face: of several, the one whose landmarks span the largest square, or the one whose mean
            point is nearest to the middle of the photo. Of equals the surest, then the first.

    Raises:
        DataError: there is no face, or the detector fails, or breaks its promise.
    """
    try:
        points, scores = (np.asarray(each, np.float64) for each in detector(image))
    except ManyfaceError:
        raise
    except Exception as error:  # of somebody else's code, which one photo must not end
        raise DataError(f"the detector failed ({type(error).__name__}: {error})") from error
    if points.size == 0:
        raise DataError("no face was found")
    if scores.ndim != 1 or points.shape != (len(scores), NUM_POINTS, 2):
        raise DataError(
            f"the detector gave points {list(points.shape)} and scores {list(scores.shape)}; "
            "expected [n, 5, 2] and [n]"
        )
    if face == "largest":
        fitness = np.ptp(points, axis=1).max(axis=-1)
    else:
        middle = np.array([image.shape[1], image.shape[0]]) / 2
        fitness = -np.linalg.norm(points.mean(axis=1) - middle, axis=-1)
    order = np.lexsort((-scores, -fitness))
    return np.asarray(points[order[0]])


def detected(detector: Detector, *, face: Face = "largest") -> FindPoints:
    """Finds a photo's landmarks by `detector`, which is called by one thread at a time."""
    alone = Lock()

    def find(name: str, pixels: UInt8Array) -> FloatArray:
        with alone:  # nobody knows whether a function of somebody else bears two
            return detect_face(detector, pixels, face=face)

    return find


def _uniface() -> Detector:
    module = _imported("uniface", "pip install 'uniface[cpu]'")
    network: Any = module.RetinaFace()

    def detect(image: UInt8Array) -> tuple[FloatArray, FloatArray]:
        faces = network.detect(np.ascontiguousarray(image[..., ::-1]))  # it takes BGR
        points = np.array([face.landmarks for face in faces], np.float64).reshape(-1, NUM_POINTS, 2)
        return points, np.array([face.confidence for face in faces], np.float64)

    return detect


_KNOWN: dict[str, Callable[[], Detector]] = {"uniface": _uniface}


def _imported(module: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # what its own code raises, too
        raise ConfigError(
            f"the detector's module {module} cannot be imported ({error}): {remedy}"
        ) from error

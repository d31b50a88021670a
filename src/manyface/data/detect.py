"""Landmarks from a detector that the user has: any function with the shape of `Detector`.

manyface finds no faces itself. By name it knows `uniface` (RetinaFace on ONNX Runtime, kept up;
it fetches its weights on first use); everything else is given as "package.module:function". Neither
is imported before it is asked for, and whatever either raises is an error of that photo.
"""

import importlib
from collections.abc import Callable
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, DataError, ManyfaceError, one_line
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
        ConfigError: it is not there, or cannot be made ready.
    """
    if name in _KNOWN:
        return _KNOWN[name]()
    module_name, colon, function = name.partition(":")
    if not colon:
        raise ConfigError(
            f"no detector is called {name!r}; known: {', '.join(_KNOWN)}; or give a function of "
            "yours as package.module:function"
        )
    found = getattr(_imported(module_name, _WHERE), function, None)
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
        DataError: there is no face, or the detector fails or breaks its promise.
    """
    points, scores = _called(detector, image)
    if points.size == 0:
        raise DataError("no face was found")
    if points.shape != (scores.size, NUM_POINTS, 2) or scores.ndim != 1:
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


def _called(detector: Detector, image: UInt8Array) -> tuple[FloatArray, FloatArray]:
    """What the detector gives, as arrays."""
    try:
        points, scores = detector(image)
        return np.asarray(points, np.float64), np.asarray(scores, np.float64)
    except (ManyfaceError, MemoryError):
        raise
    except Exception as error:  # whatever code of others does with an unusual photo
        raise DataError(f"the detector fails on it ({one_line(error)})") from error


def detected(detector: Detector, *, face: Face = "largest") -> FindPoints:
    """Finds a photo's landmarks by `detector`, which is called by one thread at a time."""
    alone = Lock()

    def find(name: str, pixels: UInt8Array) -> FloatArray:
        with alone:  # nobody knows whether a function of somebody else bears two
            return detect_face(detector, pixels, face=face)

    return find


def _uniface() -> Detector:
    module = _imported("uniface", "pip install 'uniface[cpu]'")
    try:
        network: Any = module.RetinaFace()
    except Exception as error:  # nothing to fetch from, no room, no ONNX Runtime
        raise ConfigError(
            f"uniface cannot be made ready ({one_line(error)}); it fetches its weights when it is "
            "first used, and keeps them in ~/.uniface/models, or in $UNIFACE_CACHE_DIR"
        ) from error

    def detect(image: UInt8Array) -> tuple[FloatArray, FloatArray]:
        faces = network.detect(np.ascontiguousarray(image[..., ::-1]))  # it takes BGR
        points = np.array([face.landmarks for face in faces], np.float64).reshape(-1, NUM_POINTS, 2)
        return points, np.array([face.confidence for face in faces], np.float64)

    return detect


_KNOWN: dict[str, Callable[[], Detector]] = {"uniface": _uniface}
KNOWN = tuple(_KNOWN)
# Never "pip install NAME": a name that was meant for a file here may be anybody's package there.
_WHERE = "a file of yours is found in the folders of PYTHONPATH, as in PYTHONPATH=. manyface ..."


def _imported(module: str, remedy: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # of a module of others
        raise ConfigError(
            f"the detector's module {module} cannot be imported ({one_line(error)}): {remedy}"
        ) from error

"""Five-point alignment: photo and landmarks -> the square crop that face nets are trained on.

The similarity transform (rotation, one scale, shift; no mirror) that brings five landmarks closest
to a fixed template, by least squares (Umeyama 1991). In the plane, with points as complex numbers
z and template points w, both less their means, it has a closed form:

    w ~ a z + b,   a = sum(conj(z) w) / sum(|z|^2),   b = mean(w) - a mean(z)

Then the photo is warped: bilinear, black outside. The arithmetic is that of OpenCV 4, by which the
field's sets were made: places in steps of 1/32 pixel, weights in 1/1024, rounded half up; measured
equal in every pixel to 4.10. OpenCV 5 interpolates without such steps: 99.8 % of the values of a
photo are within one grey level of it, and none was further off than 4.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
# Landmarks [5, 2] of a photo by its name and pixels; DataError says why there are none.
FindPoints = Callable[[str, UInt8Array], FloatArray]

# x, y of left eye, right eye, nose, left and right corner of the mouth in 112x112; left is the
# viewer's. In float32, as insightface keeps them.
_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    np.float32,
)
NUM_POINTS = 5
_LARGEST = 1e6  # pixels; what lies further out is no landmark
_SMALLEST_SPREAD = 1e-6  # square pixels, summed
# A mirrored face fits the mirrored template 4.5 times better; a profile fits both alike.
_MIRRORED = 2.0
_AB_BITS, _INTER_BITS = 10, 5  # names and values of OpenCV
_STEPS = 1 << _INTER_BITS


def template(size: int = 112) -> FloatArray:
    """Where the landmarks of a crop of `size` pixels lie, float64 [5, 2] (x, y).

    Multiples of 112 scale the template; those of 128 have its margin of 8 pixels at each side.
    """
    if size > 0 and size % 112 == 0:
        return (_TEMPLATE * np.float32(size / 112)).astype(np.float64)
    if size > 0 and size % 128 == 0:
        scaled = _TEMPLATE * np.float32(size / 128)
        scaled[:, 0] += np.float32(8 * size / 128)
        return scaled.astype(np.float64)
    raise DataError(f"aligned faces have a multiple of 112 or 128 pixels a side, got {size}")


def five_of_68(points: npt.ArrayLike) -> FloatArray:
    """The five points of the usual 68: [..., 68, 2] -> float64 [..., 5, 2]."""
    given = np.asarray(points, np.float64)
    eyes = [(given[..., a, :] + given[..., b, :]) / 2 for a, b in ((36, 39), (42, 45))]
    return np.stack([*eyes, *(given[..., k, :] for k in (30, 48, 54))], axis=-2)


def similarity(landmarks: npt.ArrayLike, *, size: int = 112) -> FloatArray:
    """The transforms of photos into their crops.

    Args:
        landmarks: [..., 5, 2], x and y in pixels of the photo, in the template's order.
        size: of the crop, pixels.

    Returns: float64 [..., 2, 3]; crop = matrix @ (x, y, 1).

    Raises:
        DataError: landmarks that are no numbers, lie on one point, or show a mirrored face, which
            no rotation brings to the template.
    """
    given = np.asarray(landmarks, np.float64)
    if given.shape[-2:] != (NUM_POINTS, 2):
        raise DataError(f"expected landmarks of shape [..., 5, 2], got {list(given.shape)}")
    _refuse(~(np.abs(given) <= _LARGEST).all(axis=(-2, -1)), "landmarks that are no places", given)
    source, target = (points[..., 0] + 1j * points[..., 1] for points in (given, template(size)))
    z = source - source.mean(axis=-1, keepdims=True)
    w = target - target.mean()
    spread = (z.real**2 + z.imag**2).sum(axis=-1)
    _refuse(spread < _SMALLEST_SPREAD, "landmarks that lie on one point", given)
    fit, mirrored_fit = (z.conj() * w).sum(axis=-1), (z * w).sum(axis=-1)
    _refuse(
        np.abs(mirrored_fit) > _MIRRORED * np.abs(fit),
        "landmarks of a mirrored face (left and right exchanged, or y upwards)",
        given,
    )
    a = fit / spread
    b = target.mean() - a * source.mean(axis=-1)
    rows = [[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def warp(image: UInt8Array, matrix: FloatArray, *, size: int = 112) -> UInt8Array:
    """The crop that `matrix` makes of a photo, black where the photo ends.

    Args:
        image: uint8 [H, W, 3].
        matrix: float64 [2, 3] from `similarity`.

    Returns: uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    x, y = _places(matrix, size)
    left, top, right_share, lower_share = x >> _INTER_BITS, y >> _INTER_BITS, x % _STEPS, y % _STEPS
    total = np.full((size, size, 3), _STEPS * _STEPS // 2, np.int32)  # rounds half up
    for row, of_row in ((top, _STEPS - lower_share), (top + 1, lower_share)):
        for column, of_column in ((left, _STEPS - right_share), (left + 1, right_share)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = (of_row * of_column * inside).astype(np.int32)
            pixels = image[row.clip(0, height - 1), column.clip(0, width - 1)]
            total += weight[..., None] * pixels  # [size, size, 3]
    return (total >> 2 * _INTER_BITS).astype(np.uint8)


def align(image: UInt8Array, landmarks: npt.ArrayLike, *, size: int = 112) -> UInt8Array:
    """The aligned crop uint8 [size, size, 3] of a photo uint8 [H, W, 3].

    Raises:
        DataError: as of `similarity`, or no landmark lies inside of the photo.
    """
    matrix = similarity(landmarks, size=size)
    x, y = np.asarray(landmarks, np.float64).T
    height, width = image.shape[:2]
    if not ((x >= 0) & (x < width) & (y >= 0) & (y < height)).any():
        raise DataError(
            f"no landmark lies inside of the {width}x{height} photo; are they of another size?"
        )
    return warp(image, matrix, size=size)


def _places(matrix: FloatArray, size: int) -> tuple[IntArray, IntArray]:
    """Where in the photo each pixel of the crop comes from, in steps: int64 [size, size] twice."""
    (m00, m01, m02), (m10, m11, m12) = matrix.tolist()
    shrink = 1.0 / (m00 * m11 - m01 * m10)
    back = np.array([[m11 * shrink, -m01 * shrink], [-m10 * shrink, m00 * shrink]])
    shift = (-back[0, 0] * m02 - back[0, 1] * m12, -back[1, 0] * m02 - back[1, 1] * m12)
    along = np.arange(size)
    places = []
    for axis in (0, 1):
        of_column = np.rint(back[axis, 0] * along * (1 << _AB_BITS)).astype(np.int64)
        of_row = np.rint((back[axis, 1] * along + shift[axis]) * (1 << _AB_BITS)).astype(np.int64)
        half_a_step = 1 << (_AB_BITS - _INTER_BITS - 1)
        whole = of_row[:, None] + of_column[None, :] + half_a_step
        places.append(whole >> (_AB_BITS - _INTER_BITS))
    return places[0], places[1]


def _refuse(found: npt.NDArray[np.bool_] | np.bool_, what: str, landmarks: FloatArray) -> None:
    wrong = np.ravel(found)
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    shown = np.array2string(landmarks.reshape(-1, NUM_POINTS * 2)[first], precision=1)
    count = (
        f" ({np.count_nonzero(wrong)} of {wrong.size}; number {first})" if wrong.size > 1 else ""
    )
    raise DataError(f"{what}{count}: {shown}; expected x and y of eyes, nose, corners of the mouth")

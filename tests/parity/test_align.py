"""Alignment equals the field's: scikit-image's estimate, OpenCV's warp.

OpenCV 4 and ours are equal in every pixel (the hashes below were taken from opencv-python-headless
4.10.0.84); OpenCV 5 interpolates more finely, so it is compared within a grey level.
"""

import hashlib

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from manyface.base.random import numpy_generator
from manyface.data.align import similarity, template, warp

SIZES = [112, 224, 128, 256]


def photo(seed: int, *, smooth: bool = True) -> np.ndarray:
    """uint8 [300, 260, 3]."""
    generator = numpy_generator(seed, "photo")
    if not smooth:
        return generator.integers(0, 256, (300, 260, 3), dtype=np.uint8)
    coarse = generator.integers(0, 256, (30, 26, 3), dtype=np.uint8)
    return cv2.resize(coarse, (260, 300), interpolation=cv2.INTER_CUBIC)


def landmarks(seed: int) -> np.ndarray:
    """Those of a face of 50 to 250 pixels, turned by up to a radian, and not quite the template."""
    generator = numpy_generator(seed, "landmarks")
    angle = generator.uniform(-1, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (template() - 56) * generator.uniform(0.5, 2.5) @ turn.T
    return points + generator.uniform(80, 180, 2) + generator.normal(0, 3, (5, 2))


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_is_scikit_images(size: int) -> None:
    for seed in range(50):
        theirs = SimilarityTransform.from_estimate(landmarks(seed), template(size))
        assert np.abs(similarity(landmarks(seed), size=size) - theirs.params[:2]).max() < 1e-9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("smooth", [True, False])
def test_the_pixels_are_opencvs(size: int, smooth: bool) -> None:
    is_stepwise = int(cv2.__version__.split(".")[0]) < 5
    apart = []
    for seed in range(20):
        matrix = similarity(landmarks(seed), size=size)
        image = photo(seed, smooth=smooth)
        theirs = cv2.warpAffine(image, matrix, (size, size), borderValue=0.0)
        apart.append(np.abs(warp(image, matrix, size=size).astype(int) - theirs).ravel())
    values = np.concatenate(apart)
    if is_stepwise:
        assert values.max() == 0
    elif smooth:
        assert (values <= 1).mean() > 0.995
        assert values.max() <= 8
    else:  # noise is the worst case: a 64th of a pixel is up to 8 grey levels
        assert values.max() <= 16


@pytest.mark.parametrize(
    "seed, size, digest",
    [
        (0, 112, "beb296d2c3e771ca"),
        (1, 224, "d50bc2caa13133fd"),
        (2, 128, "7af937f9bb6260e0"),
        (3, 256, "36afed59ac7fe70e"),
        (4, 112, "91cbafb8f5609fd1"),
        (5, 224, "16801e047e61484e"),
    ],
)
def test_the_pixels_of_opencv_4(seed: int, size: int, digest: str) -> None:
    image = photo(seed, smooth=False)
    pixels = warp(image, similarity(landmarks(seed), size=size), size=size)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == digest

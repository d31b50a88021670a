"""Five points find their template; what cannot be aligned is said in words."""

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.data.align import align, five_of_68, similarity, template, warp


def test_templates_of_all_sizes() -> None:
    assert np.allclose(template()[0], [38.2946, 51.6963], atol=1e-5)
    assert np.allclose(template(224), 2 * template())
    assert np.allclose(template(128), template() + np.array([8, 0]))
    assert np.allclose(template(256), 2 * template() + np.array([16, 0]))
    assert np.allclose(template(896), 8 * template()), "112 goes first"
    for size in (0, -112, 100):
        with pytest.raises(DataError, match="a multiple of 112 or 128"):
            template(size)


def test_a_face_in_place_stays() -> None:
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.allclose(similarity(template()), [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    assert np.array_equal(align(image, template()), image)


def test_undoes_turn_scale_and_shift() -> None:
    angle, scale, shift = 0.7, 2.5, np.array([30.0, -8.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = template() @ (scale * turn).T + shift
    matrix = similarity(moved)
    assert np.allclose(matrix[:, :2], turn.T / scale)
    assert np.allclose(moved @ matrix[:, :2].T + matrix[:, 2], template())


def test_many_at_once() -> None:
    generator = np.random.default_rng(1)
    points = template() + generator.normal(0, 3, (4, 3, 5, 2))
    together = similarity(points)
    assert together.shape == (4, 3, 2, 3)
    assert np.allclose(together[2, 1], similarity(points[2, 1]))


def test_outside_is_black() -> None:
    image = np.full((60, 40, 3), 200, np.uint8)
    shifted = warp(image, np.array([[1.0, 0, 50], [0, 1.0, 0]]))
    assert (shifted[:60, 50:90] == 200).all()
    assert not shifted[:, :50].any()
    assert not shifted[60:].any()
    assert not shifted[:, 90:].any()
    half = warp(image, np.array([[1.0, 0, 0.5], [0, 1.0, 0]]))
    assert (half[:60, 0] == 100).all(), "half a pixel of nothing"


def test_68_points() -> None:
    points = np.arange(136.0).reshape(68, 2)
    five = five_of_68(points)
    assert five.tolist() == [[75, 76], [87, 88], [60, 61], [96, 97], [108, 109]]
    assert five_of_68(np.stack([points, points])).shape == (2, 5, 2)


@pytest.mark.parametrize(
    "points, words",
    [
        (np.zeros((5, 3)), r"shape \[..., 5, 2\], got \[5, 3\]"),
        (np.full((5, 2), 7.0), "lie on one point: .*7"),
        (np.full((5, 2), np.nan), "no places"),
        (template() * [1, np.inf], "no places"),
        (template() * 1e9, "no places"),
        (template() * [-1, 1], "mirrored face"),
        (template() * [1, -1], "mirrored face"),
        (template()[[1, 0, 2, 4, 3]], "mirrored face"),
        (np.stack([template(), np.full((5, 2), 7.0)]), "1 of 2; number 1"),
    ],
)
def test_what_cannot_be_aligned(points: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        similarity(points)


def test_profiles_are_aligned() -> None:
    """All points on a line, or a little past it, as in faces that look aside."""
    for squeeze in (0.0, 0.1, -0.1):
        assert np.isfinite(similarity(template() * [squeeze, 1])).all()


def test_landmarks_of_another_photo() -> None:
    with pytest.raises(DataError, match="of another size"):
        align(np.zeros((30, 30, 3), np.uint8), template())


def test_far_away_costs_nothing() -> None:
    image = np.full((50, 50, 3), 9, np.uint8)
    points = (template() - template()[0]) * 9e3 + 10
    assert align(image, points).shape == (112, 112, 3)

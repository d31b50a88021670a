"""Detectors of others: found by name, asked for one face; uniface as a module of its interface."""

import sys
from pathlib import Path
from types import ModuleType

import fake_uniface
import numpy as np
import pytest

from manyface.base.errors import ConfigError, DataError
from manyface.data.align import template
from manyface.data.detect import detect_face, load_detector

PHOTO = np.zeros((200, 300, 3), np.uint8)
SMALL, LARGE = template() * 0.5 + [100, 60], template() * 1.5


def test_uniface_is_given_bgr(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def find(image: np.ndarray) -> list[np.ndarray]:
        seen.append(image[0, 0].tolist())
        return [SMALL] if len(seen) == 1 else []

    monkeypatch.setitem(sys.modules, "uniface", fake_uniface.module(find))
    image = PHOTO.copy()
    image[0, 0] = (1, 2, 3)
    assert np.allclose(detect_face(load_detector("uniface"), image), SMALL, atol=1e-4)
    assert seen == [[3, 2, 1]]
    with pytest.raises(DataError, match="no face was found"):
        detect_face(load_detector("uniface"), image)


def test_uniface_takes_views_of_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned upright, cut, not to be written."""
    monkeypatch.setitem(sys.modules, "uniface", fake_uniface.module(lambda image: [SMALL, LARGE]))
    image = np.zeros((300, 400, 3), np.uint8)
    image.setflags(write=False)
    for view in (image, np.rot90(image), image[::-1, 50:]):
        assert np.allclose(detect_face(load_detector("uniface"), view), LARGE, atol=1e-4)


def test_uniface_that_cannot_fetch_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_uniface.module(lambda image: [])

    def unreachable(**options: object) -> None:
        raise ConnectionError("Download failed for 'retinaface_mnet_v2' after 3 attempts")

    fake.RetinaFace = unreachable  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uniface", fake)
    with pytest.raises(ConfigError, match=r"cannot be made ready \(ConnectionError: Download"):
        load_detector("uniface")


def test_a_function_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("my_faces")
    mine.find = lambda image: ([SMALL], [1.0])  # type: ignore[attr-defined]
    mine.nothing = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_faces", mine)
    assert np.allclose(detect_face(load_detector("my_faces:find"), PHOTO), SMALL)
    for name in ("my_faces:absent", "my_faces:nothing"):
        with pytest.raises(ConfigError, match="my_faces has no function"):
            load_detector(name)


@pytest.mark.parametrize("name, words", [("retina", "known: uniface"), ("no_such:f", "no_such")])
def test_one_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_detector(name)


def test_one_face_of_several() -> None:
    def detector(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.stack([SMALL, LARGE, LARGE + 1]), np.array([0.99, 0.6, 0.7])

    assert np.array_equal(detect_face(detector, PHOTO), LARGE + 1), "of equals the surest"
    assert np.array_equal(detect_face(detector, PHOTO, face="central"), SMALL)


def test_a_detector_that_breaks_its_promise() -> None:
    with pytest.raises(DataError, match=r"points \[1, 5, 2\] and scores \[2\]"):
        detect_face(lambda image: ([SMALL], [1.0, 2.0]), PHOTO)


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda image: 1 / 0, r"fails on it \(ZeroDivisionError: division by zero\)"),
        (lambda image: None, r"fails on it \(TypeError"),
        (lambda image: [SMALL], r"fails on it \(ValueError: not enough values"),
        (lambda image: ([SMALL, [[1, 2]]], [1.0, 2.0]), r"fails on it \(ValueError"),
        (lambda image: ([SMALL], None), r"scores \[\]"),
        (lambda image: (SMALL, [1.0] * 5), r"points \[5, 2\]"),
    ],
)
def test_a_detector_that_fails_is_an_error_of_that_photo(function: object, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        detect_face(function, PHOTO)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No advice to install what somebody else may have put under that name."""
    (tmp_path / "broken_faces.py").write_text("raise RuntimeError('no camera')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported \(RuntimeError: no camera\)"):
        load_detector("broken_faces:find")
    for name in ("my_absent_faces:find", ":find", ".here:find"):
        with pytest.raises(ConfigError, match="PYTHONPATH") as caught:
            load_detector(name)
        assert "pip install" not in str(caught.value)

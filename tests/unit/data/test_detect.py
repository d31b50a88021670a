"""Detectors of others: found by name, asked for one face."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from manyface.base.errors import ConfigError, DataError
from manyface.data.align import template
from manyface.data.detect import detect_face, load_detector

PHOTO = np.zeros((200, 300, 3), np.uint8)
SMALL, LARGE = template() * 0.5 + [100, 60], template() * 1.5


def test_uniface_is_given_bgr(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class RetinaFace:
        def detect(self, image: np.ndarray) -> list[SimpleNamespace]:
            seen.append(image[0, 0].tolist())
            return [SimpleNamespace(landmarks=SMALL.astype(np.float32), confidence=0.9)]

    fake = ModuleType("uniface")
    fake.RetinaFace = RetinaFace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uniface", fake)
    image = PHOTO.copy()
    image[0, 0] = (1, 2, 3)
    assert np.allclose(detect_face(load_detector("uniface"), image), SMALL, atol=1e-4)
    assert seen == [[3, 2, 1]]
    RetinaFace.detect = lambda self, image: []  # type: ignore[method-assign]
    with pytest.raises(DataError, match="no face was found"):
        detect_face(load_detector("uniface"), image)


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


@pytest.mark.parametrize("given", [None, 3, ([SMALL],), ([SMALL], 1.0), ("x", "y")])
def test_what_a_detector_gives_wrongly_or_raises_is_told(given: object) -> None:
    with pytest.raises(DataError, match="the detector"):
        detect_face(lambda image: given, PHOTO)  # type: ignore[arg-type, return-value]

    def failing(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise RuntimeError("out of luck")

    with pytest.raises(DataError, match=r"the detector failed \(RuntimeError: out of luck\)"):
        detect_face(failing, PHOTO)


def test_a_function_of_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console script does not look there by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    (tmp_path / "finder_of_mine.py").write_text("def find(image): return [], []\n")
    (tmp_path / "broken_finder.py").write_text("def find(image) return\n")
    with pytest.raises(DataError, match="no face"):
        detect_face(load_detector("finder_of_mine:find"), PHOTO)
    for name in ("broken_finder:find", ":find"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            load_detector(name)

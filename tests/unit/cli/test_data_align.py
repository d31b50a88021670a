"""`manyface data align` on a small folder of photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyface.cli import main
from manyface.data.align import template

POINTS = template() * 0.8 + 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two people with two photos each, landmarks for three of them."""
    generator = np.random.default_rng(0)
    lines = []
    for person in ("Ann", "Bob"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        for number in (1, 2):
            name = f"{person}/{number}.jpg"
            pixels = generator.integers(0, 256, (130, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name)
            lines.append(" ".join([name, *map(str, POINTS.ravel().tolist())]))
    (tmp_path / "points.txt").write_text("\n".join(lines[:3]))
    return tmp_path


def test_aligns_and_goes_on(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "align", str(photos / "photos"), str(photos / "out"), "--landmarks",
             str(photos / "points.txt"), "--size", "128", "--format", "png"]  # fmt: skip
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"3 faces written to {photos / 'out'}"
    assert "1 photos are left out" in lines[1]
    assert "(first: Bob/2.jpg: it has no landmarks)" in lines[1]
    assert (photos / "out/left_out.tsv").read_text() == "Bob/2.jpg\tit has no landmarks\n"
    with Image.open(photos / "out/Ann/1.png") as image:
        assert image.size == (128, 128)
    assert main(words) == 0
    assert "0 faces written" in capsys.readouterr().out
    assert main([*words, "--format", "jpg"]) == 2
    assert "in another way" in capsys.readouterr().err


def test_by_a_detector(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "my_detector.py").write_text(
        f"def find(image):\n    assert image.shape == (130, 120, 3)\n"
        f"    return [{POINTS.tolist()}], [0.9]\n"
    )
    monkeypatch.syspath_prepend(photos)
    words = ["data", "align", str(photos / "photos"), str(photos / "out"), "--detector"]
    assert main([*words, "my_detector:find", "--face", "central"]) == 0
    assert "4 faces written" in capsys.readouterr().out
    assert (photos / "out/left_out.tsv").read_text() == ""


@pytest.mark.parametrize(
    "options, code, words",
    [
        ([], 2, "give --landmarks FILE or --detector NAME"),
        (["--landmarks", "x", "--detector", "uniface"], 2, "one of the two"),
        (["--landmarks", "absent.txt"], 1, "cannot read absent.txt"),
        (["--detector", "nobody"], 2, "known: uniface"),
        (["--landmarks", "x", "--size", "100"], 1, "a multiple of 112 or 128"),
        (["--landmarks", "x", "--format", "gif"], 2, "--format is one of jpg, png, got 'gif'"),
        (["--landmarks", "x", "--face", "any"], 2, "--face is one of largest, central"),
    ],
)
def test_what_is_wrong_is_one_line(
    photos: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    assert main(["data", "align", str(photos / "photos"), str(photos / "out"), *options]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "defect" not in error
    assert not (photos / "out").exists()

"""`manyface data inspect`: facts of every format, at any width, for people and for programs."""

import json

import numpy as np
import pytest
from pictures import encoded, face, smooth_pixels, write_folder, write_recordio

from manyface.cli.data.shared import bars
from manyface.cli.program import main
from manyface.data.tools.inspection import histogram

PEOPLE = {
    "Ann": {f"{i}.jpg": face(i) for i in range(9)},
    "Bob": {"0.png": encoded(smooth_pixels(50, size=96), "PNG", mode="L")},
    "Cid": {"0.jpg": b"broken", "1.jpg": face(60)},
}


def inspect(capsys, path, *words):
    code = main(["data", "inspect", str(path), *map(str, words)])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


@pytest.mark.parametrize("width", [40, 60, 100])
@pytest.mark.parametrize("write", [write_folder, write_recordio])
def test_facts_at_any_width(tmp_path, capsys, monkeypatch, width, write):
    monkeypatch.setenv("COLUMNS", str(width))
    path = write(tmp_path / "set.rec", PEOPLE)
    out = inspect(capsys, path, "--json", tmp_path / "facts.json")
    text = " ".join(out.split())
    for words in (
        "identities 3",
        "images 12; of an identity 1 to 9, median 2, mean 4.0",
        "sample 12 images, 1 cannot be read",
        "pixels 112x112 83.3 %, 96x96 8.3 %",
        "JPEG 83.3 %, PNG 8.3 %",
        "RGB 83.3 %, grey 8.3 %",
    ):
        assert words in text
    picture = out.split("images per identity\n")[1].splitlines()
    assert [line.split()[0] for line in picture] == ["1", "2", "3-4", "5-8", "9-16"]
    assert all(len(line) <= width for line in picture)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["histogram"] == [[1, 1, 1], [2, 2, 1], [3, 4, 0], [5, 8, 0], [9, 16, 1]]
    assert facts["per_identity"] == {"smallest": 1, "median": 2, "mean": 4, "largest": 9}
    assert (facts["format"], facts["checksums"]) == (
        ("folder", None) if write is write_folder else ("recordio", False)
    )


def test_speed_of_a_larger_sample(tmp_path, capsys):
    path = write_folder(tmp_path / "a", {"Ann": {f"{i}.jpg": face(i) for i in range(40)}})
    assert "/s on 1 thread" in inspect(capsys, path, "--sample", 34, "--threads", 2)


def test_headers_of_insightface(tmp_path, capsys):
    path = write_recordio(tmp_path / "a.rec", {"Ann": {"1": face(1)}}, headers=True)
    assert "2 records without image" in inspect(capsys, path)


def test_histogram_holds_everybody():
    counts = np.random.default_rng(0).integers(1, 5000, 1000)
    bins = histogram(counts)
    assert sum(number for _, _, number in bins) == 1000
    assert all(low <= high for low, high, _ in bins)


def test_bars():
    assert bars([8, 4, 0, 0.01], 2) == ["██", "█", "", "▏"]

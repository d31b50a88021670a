"""Landmark files in the ways that people have them."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.data.landmarks import Landmarks, photo_key, read_landmarks

FIVE = [[10, 20], [30.5, 21], [20, 30], [12, 40], [29, 41]]
IN_TURN = "10 20 30.5 21 20 30 12 40 29 41"
Read = Callable[..., Landmarks]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write(text: str | bytes, name: str = "points.txt") -> Landmarks:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_landmarks(path)

    return write


@pytest.mark.parametrize(
    "text",
    [
        f"Ann/1.jpg {IN_TURN}\n",
        f"Ann/1.jpg {IN_TURN} 0.98\n",
        f"\ufeffAnn/1.jpg {IN_TURN}\r\n\r\n",
        f"lfw/Ann/1.png,{IN_TURN.replace(' ', ', ')}\n",
        f"Ann\\1.jpg\t{IN_TURN.replace(' ', chr(9))}\n",
        f'"Ann/1.jpg",{IN_TURN.replace(" ", ",")},1e-3\n',
        f"image,lex,ley,rex,rey,nx,ny,mlx,mly,mrx,mry\nAnn/1.jpg,{IN_TURN.replace(' ', ',')}\n",
        "name,x1,x2,x3,x4,x5,y1,y2,y3,y4,y5\nAnn/1.jpg,10,30.5,20,12,29,20,21,30,40,41\n",
        f"file x_1 y_1 x_2 y_2 x_3 y_3 x_4 y_4 x_5 y_5 score\nAnn/1.jpg {IN_TURN} 1\n",
        "image,score,lefteye_x,lefteye_y,righteye_x,righteye_y,nose_x,nose_y,left_x,left_y,r_x,r_y\n"
        f"Ann/1.jpg,0.5,{IN_TURN.replace(' ', ',')}\n",
        f"idx,ldmk_{',ldmk_'.join(map(str, range(10)))}\n1,{IN_TURN.replace(' ', ',')}\n",
    ],
)
def test_ways_of_writing(read: Read, text: str) -> None:
    found = read(text)
    assert len(found) == 1
    points = found.of("Ann/1.jpg", width=50, height=50)
    assert points is not None
    assert points.tolist() == FIVE
    assert found.of("Ann/2.jpg", width=50, height=50) is None


def test_packed(read: Read) -> None:
    assert len(read(gzip.compress(f"a {IN_TURN}\n".encode()), "points.csv.gz")) == 1
    with pytest.raises(DataError, match="cannot read"):
        read(gzip.compress(b"a 1 2 3" * 99)[:30], "points.csv.gz")
    with pytest.raises(DataError, match="cannot read"):
        read(b"\x1f\x8b\x08" + b"\xff" * 99)


def test_68_points(read: Read) -> None:
    numbers = " ".join(map(str, range(136)))
    points = read(f"a.jpg {numbers}\nb.jpg {numbers} 0.5\n").of("b.jpg", width=1, height=1)
    assert points is not None
    assert points.tolist() == [[75, 76], [87, 88], [60, 61], [96, 97], [108, 109]]


def test_shares_of_the_size(read: Read) -> None:
    found = read("0,0.1,0.2,0.3,0.2,0.2,0.3,0.1,0.4,0.3,0.4\n1,nan,0,0,0,0,0,0,0,1.1,-0.1\n")
    assert found.are_shares
    points = found.of("Ann/0.jpg", width=200, height=100)
    assert points is not None
    assert points[0].tolist() == [20, 20]


def test_names_are_folder_and_file() -> None:
    assert photo_key("a/b/c.d.jpg") == "b/c.d"
    assert photo_key("c.jpg") == photo_key("./c.png") == "c"
    assert photo_key("/c.jpg") == "c"
    assert photo_key("Jose\u0301/1.jpg") == photo_key("Jos\u00e9/1.jpg")


def test_the_real_ones(lfw_tar: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(lfw_tar) as archive:
        packed = archive.extractfile("lfw-lists/landmarks-deepfunneled-250.csv.gz")
        assert packed is not None
        (tmp_path / "lfw.csv.gz").write_bytes(packed.read())
    found = read_landmarks(tmp_path / "lfw.csv.gz")
    assert len(found) == 13_233
    points = found.of("lfw/AJ_Cook/AJ_Cook_0001.jpg", width=250, height=250)
    assert points is not None
    assert np.allclose(points[0], [104.0, 114.2])


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "has no landmarks"),
        ("name,x,y\n", "line 1: .*a header of 1 x and 1 y"),
        ("a 1 2 3\n", "line 1: .*3 numbers after the name"),
        (f"a {IN_TURN}\nb 1 2\n", "line 2: .*3 fields"),
        (f"Ann Lee/1.jpg {IN_TURN}\n", "line 1: .*needs TABs"),
        (f"a {IN_TURN}\nb {IN_TURN} 3 4\n", "line 2: .*13 fields"),
        (f"a {IN_TURN}\nb {IN_TURN[:-1]}x\n", "line 2: .*'b 10 20"),
        (f"x/A/a.jpg {IN_TURN}\ny/A/a.png {IN_TURN}\n", "line 2: y/A/a.png has had landmarks"),
        ("a" * 70_000, "line 1: .*a very long line"),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_what_cannot_be_meant(read: Read, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        read_landmarks(tmp_path / "absent")

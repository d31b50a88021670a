"""Verification sets: real ones are read, ours are read by Python, wrong ones are named."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyface.base.errors import DataError, WriteError
from manyface.data.bin_file import (
    BinRecords,
    VerificationSet,
    find_bin,
    is_bin,
    read_bin,
    write_bin,
)
from manyface.data.images import DecodedImages

IMAGES = [b"\xff\xd8one", b"\xff\xd8two", b"\xff\xd8three", b"\xff\xd8four"]


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(value: Any, *, protocol: int = 4) -> Path:
        path = tmp_path / "set.bin"
        path.write_bytes(pickle.dumps(value, protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("answers", [[True, False], [1, 0], np.array([True, False]),
                                     [np.bool_(True), np.bool_(False)]], ids=str)  # fmt: skip
@pytest.mark.parametrize("shape", [None, (-1,), (-1, 1), (1, -1)])
def test_reads_all_ways_of_writing(
    written: Callable[..., Path], protocol: int, answers: Any, shape: tuple[int, ...] | None
) -> None:
    arrays = [np.frombuffer(image, np.uint8) for image in IMAGES]
    images = IMAGES if shape is None else [array.reshape(shape) for array in arrays]
    path = written((images, answers), protocol=protocol)
    assert is_bin(path.read_bytes()[:2])
    found = read_bin(path)
    assert list(found.images) == IMAGES
    assert found.same.tolist() == [True, False]
    assert len(found) == 2


def test_python_reads_ours(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ours.bin"
    write_bin(path, VerificationSet(IMAGES, np.array([True, False])))
    with path.open("rb") as file:  # the two lines by which insightface does it
        bins, issame_list = pickle.load(file, encoding="bytes")
    assert bins == IMAGES
    assert issame_list == [True, False]
    assert [type(answer) for answer in issame_list] == [bool, bool]
    assert path.read_bytes()[:2] == b"\x80\x04"
    assert [each.name for each in path.parent.iterdir()] == ["ours.bin"]


def test_the_bytes_that_are_written(tmp_path: Path) -> None:
    path = tmp_path / "ours.bin"
    write_bin(path, VerificationSet([b"a", b"b"], np.array([True])))
    assert path.read_bytes() == (
        b"\x80\x04\x95\x13\x00\x00\x00\x00\x00\x00\x00"  # protocol 4, a frame of 19 bytes
        b"]\x94(C\x01a\x94C\x01b\x94e"  # a list of two short bytes, each kept in the memo
        b"]\x94\x88a\x86\x94."  # a list of True; both as a pair; the end
    )


def test_reads_the_real_one(small_lfw_bin: Path) -> None:
    found = read_bin(small_lfw_bin)
    assert len(found) == 10
    assert len(found.images) == 20
    assert found.same.all()
    records = BinRecords(small_lfw_bin, found)
    images = DecodedImages(records, image_size=112, substitute=False).load(np.arange(20))
    assert images.shape == (20, 112, 112, 3)
    assert images.float().std() > 30


def test_a_person_is_what_a_pair_tells(tmp_path: Path) -> None:
    records = BinRecords(tmp_path / "x", VerificationSet(IMAGES, np.array([True, False])))
    assert records.identity_names == ["pair 0", "pair 1 left", "pair 1 right"]
    assert records.first_images.tolist() == [0, 2, 3, 4]
    assert records.read(2) == IMAGES[2]
    assert "image 3 (of pair 1)" in records.describe(3)
    with pytest.raises(DataError, match="holds images only"):
        records.read_text("pairs.txt")


@pytest.mark.parametrize(
    "value, words",
    [
        (3, "expected a pair"),
        (b"ab", "holds bytes; expected a pair"),
        ([IMAGES], "a list of 1; expected a pair"),
        ((IMAGES, [True, False], 3), "a tuple of 3; expected a pair"),
        ((b"ab", [True]), "expected a list of images first, got bytes"),
        ((IMAGES, None), "expected a list of answers second, got NoneType"),
        ((IMAGES, [True]), "4 images and 1 answers; expected two images"),
        (([], []), "at least one"),
        ((IMAGES, [True, 2]), "answer 1: expected True or False, got 2"),
        ((IMAGES, [b"", True]), "answer 0: expected True or False, got bytes"),
        ((["text", b""], [True]), "image 0: expected an encoded image, got str"),
        (([b"", IMAGES], [True]), "image 1: expected an encoded image, got a list of 4"),
        (([b"", np.zeros((2, 2, 3), np.uint8)], [True]), "image 1: .*encode pixels as JPEG"),
        (([b"", np.zeros(3, np.int16)], [True]), "image 1: .*array .* of i2"),
    ],
)
def test_what_is_wrong_is_named(written: Callable[..., Path], value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_bin(written(value))


def test_a_list_that_holds_itself(written: Callable[..., Path]) -> None:
    images: list[Any] = [b""]
    images.append(images)
    with pytest.raises(DataError, match="image 1: expected an encoded image, got a list of 2"):
        read_bin(written((images, [True])))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_bin(tmp_path / "absent.bin")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        write_bin(tmp_path / "file" / "x.bin", VerificationSet([b"", b""], np.array([True])))
    with pytest.raises(DataError, match="3 images and 1 answers"):
        write_bin(tmp_path / "x.bin", VerificationSet([b""] * 3, np.array([True])))


def test_finds_a_set_by_content_where_the_data_are(tmp_path: Path) -> None:
    data = tmp_path / "faces"
    data.mkdir()
    for place in (data / "in.set", tmp_path / "beside.set"):
        write_bin(place, VerificationSet([b"", b""], np.array([True])))
    (data / "pairs.bin").write_text("10\t300\n")
    assert find_bin("in.set", near=data) == data / "in.set"
    assert find_bin("beside.set", near=data) == tmp_path / "beside.set"
    assert find_bin(data / "in.set", near=Path("/nowhere")) == data / "in.set"
    for name in ("pairs.bin", "absent.bin", ".", ""):
        assert find_bin(name, near=data) is None


@pytest.mark.parametrize("head", [b"", b"\x80", b"\x80\x01", b"\x80\x06", b"10", b"Ann\t1", b"(i"])
def test_what_is_no_set(head: bytes) -> None:
    assert not is_bin(head)

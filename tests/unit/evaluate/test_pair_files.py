"""Verification sets to files and back: the same pairs, the same bytes, the same folds."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyface.base.errors import DataError, WriteError
from manyface.base.random import numpy_generator
from manyface.data import DecodedImages, VerificationSet, open_records, read_bin, write_bin
from manyface.data.lists import PairList, read_pairs, write_pairs
from manyface.data.records import Records
from manyface.evaluate import PairSet, lfw_pairs, synthetic_pairs
from manyface.evaluate.pair_files import name_pairs, pack, survey, unpack


def encoded(seed: int, form: str = "JPEG") -> bytes:
    pixels = numpy_generator(seed, "pixels").integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """12 people with 4 photos each."""
    for person in range(12):
        folder = tmp_path / "faces" / f"Ann Lee {person}"
        folder.mkdir(parents=True)
        for number in range(1, 5):
            (folder / f"x_{number:04d}.jpg").write_bytes(encoded(10 * person + number))
    return open_records(tmp_path / "faces")


def drawn(records: Records) -> PairSet:
    source = DecodedImages(records, image_size=1, threads=1, cache=0)
    return synthetic_pairs(source, num_pairs=24, folds=3, seed=1)


def test_a_bin_has_the_pairs_fold_by_fold(records: Records, tmp_path: Path) -> None:
    pairs = drawn(records)
    shuffled = np.random.default_rng(0).permutation(24)
    mixed = PairSet("x", pairs.source, *(
        each[shuffled] for each in (pairs.left, pairs.right, pairs.same, pairs.fold)
    ))  # fmt: skip
    write_bin(tmp_path / "mine.bin", pack(mixed, records))
    found = read_bin(tmp_path / "mine.bin")
    order = np.argsort(mixed.fold, kind="stable")
    assert np.array_equal(found.same, mixed.same[order])
    for place, pair in enumerate(order):
        assert found.images[2 * place] == records.read(int(mixed.left[pair]))
        assert found.images[2 * place + 1] == records.read(int(mixed.right[pair]))
    folds = found.same.reshape(3, 8)
    assert folds.sum(axis=1).tolist() == [4, 4, 4], "equal runs are the folds again"


def test_a_list_names_the_pairs(records: Records) -> None:
    pairs = drawn(records)
    text = write_pairs(name_pairs(pairs, records))
    assert text.startswith("3\t4\n")
    source = DecodedImages(records, image_size=1, threads=1, cache=0)
    again = lfw_pairs(source, text)
    for name in ("left", "right", "same", "fold"):
        assert np.array_equal(getattr(again, name), getattr(pairs, name))


def test_unpacked_it_is_the_same_set(tmp_path: Path) -> None:
    images = [encoded(k, "PNG" if k % 2 else "JPEG") for k in range(16)]
    given = VerificationSet(images, np.array([True, False] * 4))
    seen: list[tuple[int, int]] = []
    unpack(given, tmp_path / "new", folds=2, progress=lambda *at: seen.append(at))
    assert seen[-1] == (16, 16)
    records = open_records(tmp_path / "new")
    source = DecodedImages(records, image_size=8)
    found = lfw_pairs(source, records.read_text("pairs.txt"))
    assert found.fold.tolist() == [0] * 4 + [1] * 4
    assert pack(found, records).images == images
    assert np.array_equal(found.same, given.same)
    assert (tmp_path / "new/pair_000001_left/pair_000001_left_0001.jpg").read_bytes() == images[2]
    with pytest.raises(DataError, match="is not empty"):
        unpack(given, tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        unpack(given, tmp_path / "file")


@pytest.mark.parametrize("num, header", [(20, "10\t1"), (10, "5"), (2, "1")])
def test_folds_of_what_is_unpacked(tmp_path: Path, num: int, header: str) -> None:
    unpack(VerificationSet([b""] * 2 * num, np.ones(num, bool)), tmp_path / "new")
    assert (tmp_path / "new/pairs.txt").read_text().splitlines()[0] == header
    with pytest.raises(DataError, match="an even number of pairs"):
        unpack(VerificationSet([b""] * 6, np.ones(3, bool)), tmp_path / "odd")


def test_what_a_survey_finds() -> None:
    images = [encoded(1), encoded(1), b"", encoded(2)[:200], encoded(3), encoded(4)]
    found = survey(VerificationSet(images, np.ones(3, bool)))
    assert found.sizes == Counter({(8, 8): 4})
    assert [index for index, _ in found.unreadable] == [2, 3]
    assert found.num_distinct == 5


def test_what_cannot_be_written(records: Records, tmp_path: Path) -> None:
    pairs = drawn(records)
    first = tmp_path / "faces" / "Ann Lee 0"
    for each in list(first.iterdir()):
        each.rename(each.with_name(each.stem[-1] + "x.jpg"))
    renamed = open_records(tmp_path / "faces")
    with pytest.raises(DataError, match=r"does not end in a number of its own.*a .bin instead"):
        name_pairs(pairs, renamed)
    for each in first.iterdir():
        each.write_bytes(b"")
    with pytest.raises(DataError, match=r"Ann Lee 0.*the file is empty; take it out"):
        pack(pairs, renamed)


def test_lists_read_as_written() -> None:
    left, right = [("Ann", 1), ("Ann", 2)], [("Ann", 3), ("Bob Lee", 10)]
    pairs = PairList(left, right, np.array([True, False]), np.zeros(2, np.int64))
    assert write_pairs(pairs) == "1\nAnn\t1\t3\nAnn\t2\tBob Lee\t10\n"
    again = read_pairs(write_pairs(pairs))
    assert (again.left, again.right) == (left, right)
    for bad in ("a\tb", " a"):
        wrong = PairList([(bad, 1)] * 2, [("B", 1)] * 2, np.zeros(2, bool), np.zeros(2, np.int64))
        with pytest.raises(DataError, match="line"):
            write_pairs(wrong)
    with pytest.raises(DataError, match="folds of one size"):
        write_pairs(PairList(left, right, pairs.same, np.array([0, 1])))

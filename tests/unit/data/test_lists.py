"""Lists of people and of pairs in the forms LFW uses."""

import pytest

from manyface.base.errors import DataError
from manyface.data import open_records, read_pairs, read_people


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("2\nAnn_Lee\t3\nBob\t1\n", ["Ann_Lee", "Bob"]),
        ("2\n2\nAnn 3\nBob 1\n1\nCid 4\n", ["Ann", "Bob", "Cid"]),
        ("Ann Lee\n\nBob 2\r\n", ["Ann Lee", "Bob 2"]),
        ("Ann Lee\t3\nBob\t1", ["Ann Lee", "Bob"]),
        ("0000045\n0000099\n", ["0000045", "0000099"]),
        ("Ann\nBob\nAnn\n", ["Ann", "Bob"]),
    ],
)
def test_people(text, names):
    assert read_people(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("3\nAnn\t1\nBob\t1\n", "line 1: promises 3 names; 2 follow"),
        ("2\n1\nAnn\t1\n2\nBob\t1\n", "line 4: promises 2 names; 1 follow"),
        ("3\n1\nAnn\t1\n1\nBob\t1\n", "line 1: promises 3 folds; there are 2"),
    ],
)
def test_bad_people(text, message):
    with pytest.raises(DataError, match=message):
        read_people(text)


def test_pairs_in_folds():
    text = "2\t1\nAnn\t1\t4\nAnn\t2\tBob\t1\nCid\t1\t2\nCid\t1\tBob Lee\t3\n"
    pairs = read_pairs(text)
    assert len(pairs) == 4
    assert pairs.left == [("Ann", 1), ("Ann", 2), ("Cid", 1), ("Cid", 1)]
    assert pairs.right == [("Ann", 4), ("Bob", 1), ("Cid", 2), ("Bob Lee", 3)]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]


def test_pairs_without_folds_and_with_spaces():
    pairs = read_pairs("1\n\nAnn 1 4\nAnn 2 Bob 1\n")
    assert pairs.same.tolist() == [True, False]
    assert pairs.fold.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("Ann\t1\t2\n", "line 1: expected 'folds<TAB>n' or 'n'"),
        ("0\n", "line 1: expected"),
        ("1\nAnn\t1\t2\n", "line 1 promises 1 folds of 1 . 1 pairs, 2 in all; the list has 1"),
        ("1\nAnn\t1\t2\nAnn\t1\n", "line 3: expected 'name k1 k2'"),
        ("1\nAnn\t1\tx\nAnn\t1\tBob\t2\n", "line 2: expected"),
        ("1\nAnn\t0\t1\nAnn\t1\tBob\t2\n", "line 2: expected .* numbers from 1"),
        ("1\nAnn\t1\t2\nAnn\t1\tAnn\t2\n", "line 3: expected .* two different names"),
    ],
)
def test_bad_pairs(text, message):
    with pytest.raises(DataError, match=message):
        read_pairs(text)


def test_real_lists(lfw_tar):
    records = open_records(lfw_tar)

    def text(name: str) -> str:
        return records.read_text(f"lfw-lists/{name}.txt")

    sizes = {"people": 5749, "peopleDevTrain": 4038, "peopleDevTest": 1711, "lfw-names": 5749}
    for name, size in sizes.items():
        people = read_people(text(name))
        assert len(people) == size
        assert set(people) <= set(records.identity_names)
    for name, size, folds in (("pairs", 6000, 10), ("pairsDevTrain", 2200, 1)):
        pairs = read_pairs(text(name))
        assert len(pairs) == size
        assert pairs.same.sum() == size // 2
        assert pairs.fold.max() == folds - 1
    test_people = set(read_people(text("peopleDevTest")))
    pairs = read_pairs(text("pairsDevTest"))
    assert {name for name, _ in pairs.left + pairs.right} <= test_people
    assert not test_people & set(read_people(text("peopleDevTrain")))

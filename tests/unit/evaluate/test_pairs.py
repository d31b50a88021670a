"""Drawn pairs keep the protocol's promises; listed pairs name the right images."""

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.data.bin_file import first_places
from manyface.evaluate import PairEvaluator, bin_pairs, lfw_pairs, synthetic_pairs

from .conftest import CodedSource

VIEW_1 = """4
person 1\t1\t3
person 1\t2\t3
person 2\t1\t4
person 3\t4\t5
person 0\t1\tperson 1\t1
person 5\t1\tperson 2\t2
person 5\t1\tperson 3\t3
person 0\t1\tperson 4\t1
"""
VIEW_2 = """2\t1
person 1\t1\t3
person 0\t1\tperson 1\t1
person 2\t2\t3
person 5\t1\tperson 2\t2
"""


def test_synthetic_pairs_are_true_balanced_and_distinct(source: CodedSource) -> None:
    pairs = synthetic_pairs(source, num_pairs=80, folds=4, seed=0)
    left, right = pairs.identities()
    np.testing.assert_array_equal(left == right, pairs.same)
    assert (pairs.left != pairs.right).all()
    for fold in range(4):
        assert np.count_nonzero(pairs.same[pairs.fold == fold]) == 10
        assert np.count_nonzero(~pairs.same[pairs.fold == fold]) == 10
    unordered = {tuple(sorted(pair)) for pair in zip(pairs.left, pairs.right, strict=True)}
    assert len(unordered) == len(pairs) == 80


def test_synthetic_folds_share_no_person(source: CodedSource) -> None:
    pairs = synthetic_pairs(source, num_pairs=80, folds=4, seed=0)
    left, right = pairs.identities()
    people = [set(left[pairs.fold == k]) | set(right[pairs.fold == k]) for k in range(4)]
    for i in range(4):
        for j in range(i):
            assert not people[i] & people[j]


def test_synthetic_pairs_depend_on_the_seed_only(source: CodedSource) -> None:
    first, again, other = (
        synthetic_pairs(source, num_pairs=40, folds=2, seed=s) for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.left, again.left)
    np.testing.assert_array_equal(first.right, again.right)
    assert not np.array_equal(first.left, other.left)


def test_synthetic_same_pairs_spread_over_people() -> None:
    pairs = synthetic_pairs(CodedSource([6] * 20), num_pairs=80, folds=2, seed=0)
    left, _ = pairs.identities()
    # 20 same pairs over the 10 people of a fold: two each, but for pairs of an image with itself.
    assert np.bincount(left[pairs.same], minlength=20).max() <= 4


@pytest.mark.parametrize(
    "counts, num_pairs, folds, message",
    [
        ([2] * 8, 10, 2, "multiple of 2 x folds"),
        ([2] * 8, 4, 1, "multiple of 2 x folds"),
        ([2] * 3, 8, 4, "use fewer folds"),
        ([1] * 20, 8, 2, "use fewer folds"),
        ([2] * 8, 40, 2, "distinct same pairs"),
        ([2] * 8, 4 * 10**12, 2, "has 4 distinct same pairs, 1000000000000 were"),
    ],
)
def test_impossible_draws_are_said(
    counts: list[int], num_pairs: int, folds: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        synthetic_pairs(CodedSource(counts), num_pairs=num_pairs, folds=folds, seed=0)


def test_lfw_list_names_the_right_images(source: CodedSource) -> None:
    pairs = lfw_pairs(source, VIEW_2, folds=10)
    assert list(pairs.same) == [True, False, True, False]
    assert list(pairs.fold) == [0, 0, 1, 1]
    of_person_1 = np.flatnonzero(source.labels(np.arange(len(source))) == 1)
    assert (pairs.left[0], pairs.right[0]) == (of_person_1[0], of_person_1[2])
    assert source.labels(pairs.left).tolist() == [1, 0, 2, 5]
    assert source.labels(pairs.right).tolist() == [1, 1, 2, 2]
    assert pairs.identity_names() == ["person 0", "person 1", "person 2", "person 5"]


def test_lfw_list_may_spell_names_in_another_unicode_form(source: CodedSource) -> None:
    source.identity_names[2] = "Jos\u00e9"
    pairs = lfw_pairs(source, VIEW_2.replace("person 2", "Jose\u0301"))
    assert source.labels(pairs.left).tolist() == [1, 0, 2, 5]


def test_lfw_list_without_folds_is_cut_in_order(source: CodedSource) -> None:
    pairs = lfw_pairs(source, VIEW_1, folds=2)
    assert list(pairs.fold) == [0, 0, 1, 1, 0, 0, 1, 1]
    with pytest.raises(DataError, match="cannot fill 5 folds"):
        lfw_pairs(source, VIEW_1, folds=5)


def test_list_and_images_that_do_not_fit_are_said(source: CodedSource) -> None:
    with pytest.raises(DataError, match="no person 'stranger'"):
        lfw_pairs(source, VIEW_2.replace("person 5", "stranger"))
    with pytest.raises(DataError, match="'person 2' has no image number 9"):
        lfw_pairs(source, VIEW_2.replace("person 2\t2\t3", "person 2\t2\t9"))


def test_pairs_of_a_verification_set_are_in_its_order(source):
    same = np.arange(23) % 3 == 0
    pairs = bin_pairs(source, same, folds=10, name="lfw")
    assert pairs.left.tolist() == list(range(0, 46, 2))
    assert pairs.right.tolist() == list(range(1, 46, 2))
    assert np.array_equal(pairs.same, same)
    # scikit-learn's KFold(10, shuffle=False), by which the field cuts: larger folds first
    assert np.bincount(pairs.fold).tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert np.array_equal(pairs.fold, np.sort(pairs.fold))
    assert pairs.identity_names() == []
    assert PairEvaluator(pairs)._resampler.unit == "pairs"
    with pytest.raises(DataError, match="23 pairs, too few for 24 folds"):
        bin_pairs(source, same, folds=24, name="lfw")


def test_doubled_pairs_are_counted_and_said(source: CodedSource) -> None:
    doubled = VIEW_1.replace("person 1\t2\t3", "person 1\t3\t1")
    (note,) = PairEvaluator(lfw_pairs(source, doubled, folds=2), (0.5,)).notes
    assert "1 of the 8 pairs of lfw are there more than once" in note
    assert PairEvaluator(lfw_pairs(source, VIEW_1, folds=2), (0.5,)).notes == []


def test_an_image_and_itself_are_no_pair(source: CodedSource) -> None:
    with pytest.raises(DataError, match=r"pair 3 is image 2 of person 2 and itself"):
        lfw_pairs(source, VIEW_2.replace("person 2\t2\t3", "person 2\t2\t2"))


def test_equal_images_of_a_verification_set_are_looked_at_once(source):
    same, first = np.arange(10) < 5, np.arange(20)
    first[[7, 18]] = [0, 4]
    pairs = bin_pairs(source, same, folds=2, name="x", first=first)
    assert pairs.left.tolist() == list(range(0, 20, 2))  # the file's own places
    assert [side.tolist() for side in pairs.distinct] == [
        [0, 2, 4, 6, 8, 10, 12, 14, 16, 4],
        [1, 3, 5, 0, 9, 11, 13, 15, 17, 19],
    ]
    assert first_places([b"a", b"b", b"a", b"c", b"b"]).tolist() == [0, 1, 0, 3, 1]

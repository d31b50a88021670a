"""Metrics against scikit-learn and against brute force over every decision, with many ties."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from manyface.base.errors import DataError, NonFiniteError
from manyface.base.random import numpy_generator
from manyface.evaluate import metrics

# (pairs, distinct similarities): few distinct values mean that almost every pair is tied.
SHAPES = [(2, 1), (7, 2), (40, 3), (101, 1000), (600, 20), (997, 10**6)]


def scored_pairs(count: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    rng = numpy_generator(0, "test-metrics", count, distinct)
    same = rng.random(count) < 0.5
    same[:2] = [True, False]
    raw = rng.normal(size=count) + same
    similarity = np.floor(raw * distinct / 6) / distinct
    return similarity.astype(np.float32), same


def brute_best_accuracy(similarity: np.ndarray, same: np.ndarray) -> float:
    candidates = [*similarity, np.inf]
    return max(float(((similarity >= t) == same).mean()) for t in candidates)


@pytest.mark.parametrize("count, distinct", SHAPES)
def test_roc_and_auc_equal_scikit_learn(count: int, distinct: int) -> None:
    similarity, same = scored_pairs(count, distinct)
    roc = metrics.roc_points(similarity, same)
    far, tar, thresholds = roc_curve(same, similarity, drop_intermediate=False)
    np.testing.assert_array_equal(roc.far, far)
    np.testing.assert_array_equal(roc.tar, tar)
    np.testing.assert_array_equal(roc.thresholds, thresholds)
    assert metrics.auc(similarity, same) == pytest.approx(
        roc_auc_score(same, similarity), abs=1e-14
    )


@pytest.mark.parametrize("count, distinct", SHAPES)
def test_auc_is_the_mann_whitney_share_with_ties_half(count: int, distinct: int) -> None:
    similarity, same = scored_pairs(count, distinct)
    genuine, impostor = similarity[same][:, None], similarity[~same][None, :]
    share = (genuine > impostor).mean() + 0.5 * (genuine == impostor).mean()
    assert metrics.auc(similarity, same) == pytest.approx(share, abs=1e-14)


@pytest.mark.parametrize("count, distinct", SHAPES)
def test_best_threshold_is_best_over_every_decision(count: int, distinct: int) -> None:
    similarity, same = scored_pairs(count, distinct)
    threshold = metrics.best_threshold(similarity, same)
    found = ((similarity >= threshold) == same).mean()
    assert found == brute_best_accuracy(similarity, same)


def test_best_threshold_is_halfway_and_the_middle_of_equals() -> None:
    similarity = np.array([0.9, 0.7, 0.3, 0.1], dtype=np.float32)
    assert metrics.best_threshold(similarity, np.array([1, 1, 0, 0], bool)) == pytest.approx(0.5)
    # Cuts after 1 and after 3 pairs are equally good: the earlier of the two middle ones.
    tied = np.array([1, 0, 1, 0], bool)
    assert metrics.best_threshold(similarity, tied) == pytest.approx(0.8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("same", [True, False])
def test_best_threshold_at_the_ends_is_finite_and_right(same: bool, dtype: type) -> None:
    similarity = np.array([0.2, 0.2, -0.5], dtype=dtype)
    truth = np.full(3, same)
    threshold = metrics.best_threshold(similarity, truth)
    assert np.isfinite(threshold)
    assert ((similarity >= threshold) == truth).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_threshold_between_neighbouring_floats(dtype: type) -> None:
    upper = dtype(0.3)
    similarity = np.array([upper, np.nextafter(upper, dtype(0))])
    threshold = metrics.best_threshold(similarity, np.array([True, False]))
    assert list(similarity >= threshold) == [True, False]


@pytest.mark.parametrize("count, distinct, folds", [(40, 3, 2), (101, 1000, 10), (600, 20, 7)])
def test_kfold_accuracy_equals_brute_force(count: int, distinct: int, folds: int) -> None:
    similarity, same = scored_pairs(count, distinct)
    fold = np.arange(count) % folds + 3  # fold numbers need not start at 0
    result = metrics.kfold_accuracy(similarity, same, fold)
    for k, name in enumerate(np.unique(fold)):
        others, own = fold != name, fold == name
        threshold = result.thresholds[k]
        on_others = ((similarity[others] >= threshold) == same[others]).mean()
        assert on_others == brute_best_accuracy(similarity[others], same[others])
        assert result.accuracies[k] == ((similarity[own] >= threshold) == same[own]).mean()
        assert (result.correct[own] == ((similarity[own] >= threshold) == same[own])).all()
    assert result.mean == np.mean(result.accuracies)
    assert result.std == np.std(result.accuracies)
    assert result.standard_error == pytest.approx(result.std / np.sqrt(folds - 1))


def test_kfold_threshold_does_not_see_its_own_fold() -> None:
    similarity, same = scored_pairs(60, 1000)
    fold = np.arange(60) % 3
    changed = np.where(fold == 1, -similarity, similarity)
    before = metrics.kfold_accuracy(similarity, same, fold).thresholds[1]
    assert metrics.kfold_accuracy(changed, same, fold).thresholds[1] == before


@pytest.mark.parametrize("far", [1.0, 0.5, 0.1, 0.05, 1 / 30])
@pytest.mark.parametrize("distinct", [3, 20, 10**6])
def test_tar_at_far_is_the_best_decision_that_keeps_the_far(far: float, distinct: int) -> None:
    similarity, same = scored_pairs(600, distinct)
    far_points, tar_points, _ = roc_curve(same, similarity, drop_intermediate=False)
    expected = tar_points[far_points <= far].max()
    assert metrics.tar_at_far(similarity, same, far) == expected


def test_tar_at_far_counts_whole_impostors_despite_rounding() -> None:
    # 0.1 * 30 = 3.0000000000000004 and 0.7 / 7 < 0.1: three of thirty may be accepted, not fewer.
    impostors = np.arange(30) / 100
    similarity = np.concatenate([impostors, [0.265]])
    same = np.arange(31) == 30
    assert metrics.tar_at_far(similarity, same, 0.1) == 1.0
    assert metrics.tar_at_far(similarity, same, 0.1 - 1e-6) == 0.0


def test_far_that_the_pairs_cannot_show_is_not_extrapolated() -> None:
    similarity, same = scored_pairs(101, 1000)
    num_different = int((~same).sum())
    assert metrics.smallest_far(same) == 1 / num_different
    assert metrics.tar_at_far(similarity, same, 1 / num_different) is not None
    assert metrics.tar_at_far(similarity, same, 0.99 / num_different) is None


def test_weights_are_repetitions() -> None:
    similarity, same = scored_pairs(101, 20)
    weights = numpy_generator(1, "weights").integers(0, 4, size=101)
    repeated, truth = np.repeat(similarity, weights), np.repeat(same, weights)
    counted = metrics.tally(metrics.sort_into_cuts(similarity, same), weights)
    assert metrics.auc_of_tally(counted) == pytest.approx(metrics.auc(repeated, truth))
    assert metrics.tar_at_far_of_tally(counted, 0.1) == metrics.tar_at_far(repeated, truth, 0.1)


def test_cosine_scores() -> None:
    left = np.array([[3.0, 0], [1, 1], [0, 0]], dtype=np.float32)
    right = np.array([[5.0, 0], [-2, -2], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(metrics.cosine_scores(left, right), [1, -1, 0], atol=1e-12)


@pytest.mark.parametrize(
    "similarity, same, message",
    [
        ([0.1, np.nan], [True, False], "pair 1 is nan"),
        ([0.1, 0.2, 0.3], [True, False], "one length"),
        ([0.1, 0.2], [True, True], "of different people"),
    ],
)
def test_unusable_input_is_said(similarity: list[float], same: list[bool], message: str) -> None:
    with pytest.raises(DataError, match=message):
        metrics.auc(np.array(similarity), np.array(same))


def test_one_fold_or_no_pairs_is_said() -> None:
    similarity, same = scored_pairs(40, 3)
    with pytest.raises(DataError, match="at least 2 folds"):
        metrics.kfold_accuracy(similarity, same, np.zeros(40, dtype=np.int64))
    with pytest.raises(DataError, match="at least one pair"):
        metrics.best_threshold(np.zeros(0), np.zeros(0, dtype=bool))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_cosine_of_no_number_is_no_zero(value: float) -> None:
    left, right = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    right[2, 1] = value
    with pytest.raises(NonFiniteError, match=r"embedding of pair 2 is not finite \(1 of 4\)"):
        metrics.cosine_scores(left, right)
    left[0] = 0
    right[2, 1] = 1
    np.testing.assert_allclose(metrics.cosine_scores(left, right), [0, 1, 1, 1])

"""PairEvaluator end to end, its files, the baseline and the overlap of people."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from manyface.base.errors import DataError, WriteError
from manyface.base.random import numpy_generator
from manyface.evaluate import (
    PairEvaluator,
    bin_pairs,
    fit_whitened_pixels,
    identity_overlap,
    overlap_warning,
    synthetic_pairs,
    write_evaluation,
)
from manyface.evaluate.baselines import grey_pixels
from manyface.evaluate.files import worst_errors

from .conftest import CodedSource, embed_pixels


@pytest.fixture
def evaluator() -> PairEvaluator:
    pairs = synthetic_pairs(CodedSource([4] * 40, noise=180), num_pairs=200, folds=5, seed=0)
    return PairEvaluator(pairs, (0.1, 0.01, 0.001), resamples=200)


def test_scores_agree_with_the_similarities(evaluator: PairEvaluator) -> None:
    result = evaluator(embed_pixels)
    left = embed_pixels(evaluator.pairs.source.load(evaluator.pairs.left))
    right = embed_pixels(evaluator.pairs.source.load(evaluator.pairs.right))
    np.testing.assert_allclose(result.similarity, (left * right).sum(1), atol=1e-6)
    assert result.value("auc") == pytest.approx(roc_auc_score(result.same, result.similarity))
    decided = (result.similarity >= result.threshold) == result.same
    assert result.value("accuracy") == pytest.approx(decided.mean())
    assert 0.5 < decided.mean() < 1.0
    for score in result.scores:
        if score.name != "accuracy_std":
            assert score.low is not None
            assert score.high is not None
            assert score.low <= score.value <= score.high
            assert score.low < score.high
            assert "bootstrap over identities (200 resamples)" in score.protocol


def test_far_beyond_the_pairs_is_left_out_and_said(evaluator: PairEvaluator) -> None:
    result = evaluator(embed_pixels)
    assert result.value("tar@far=0.01") is not None
    assert result.value("tar@far=0.001") is None
    assert len(result.notes) == 1
    assert "100 different pairs can show no FAR below 0.01" in result.notes[0]
    assert result.summary()["tar_at_far"].keys() == {"0.1", "0.01"}
    assert result.summary()["verification_accuracy"] == result.value("accuracy")


def test_results_repeat_and_each_image_is_embedded_once(evaluator: PairEvaluator) -> None:
    first = evaluator(embed_pixels)
    source = evaluator.pairs.source
    assert isinstance(source, CodedSource)
    distinct = np.unique(np.concatenate([evaluator.pairs.left, evaluator.pairs.right]))
    assert sorted(source.loaded) == distinct.tolist()
    assert evaluator(embed_pixels).scores == first.scores


def test_it_has_the_shape_of_all_protocols(evaluator: PairEvaluator) -> None:
    found = evaluator(embed_pixels)
    result = found.as_result("set")
    assert (result.scores, result.notes) == (found.scores, found.notes)
    assert result.value("auc") == found.value("auc")
    (curve,) = result.curves
    assert len(curve.far) <= 200
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    json.dumps(result.as_dict())


def test_no_resamples_no_intervals(evaluator: PairEvaluator) -> None:
    result = PairEvaluator(evaluator.pairs, resamples=0)(embed_pixels)
    assert all(score.low is None and "bootstrap" not in score.protocol for score in result.scores)


def test_without_an_error_the_interval_is_not_a_point() -> None:
    pairs = synthetic_pairs(CodedSource([4] * 40, noise=1), num_pairs=200, folds=5, seed=0)
    accuracy = PairEvaluator(pairs, (0.1,), resamples=50)(embed_pixels).scores[0]
    assert (accuracy.value, accuracy.high) == (1.0, 1.0)
    assert accuracy.low == pytest.approx(0.9812, abs=1e-4)  # Wilson, 200 of 200


@pytest.mark.parametrize("far", [0.0, -0.1, 1.5])
def test_far_out_of_range_is_said(evaluator: PairEvaluator, far: float) -> None:
    with pytest.raises(DataError, match="FAR must be"):
        PairEvaluator(evaluator.pairs, (far,))


def test_files_hold_scores_and_the_most_confident_mistakes(
    evaluator: PairEvaluator, tmp_path: Path
) -> None:
    result = evaluator(embed_pixels)
    write_evaluation(tmp_path / "evaluation", evaluator.pairs, result, num_errors=6)
    assert sorted(p.name for p in (tmp_path / "evaluation").iterdir()) == [
        "synthetic-errors.npz",
        "synthetic.npz",
    ]
    with np.load(tmp_path / "evaluation/synthetic.npz", allow_pickle=False) as scores:
        np.testing.assert_array_equal(scores["similarity"], result.similarity)
        np.testing.assert_array_equal(scores["fold"], result.fold)
        np.testing.assert_array_equal(
            scores["left_identity"] == scores["right_identity"], result.same
        )
    with np.load(tmp_path / "evaluation/synthetic-errors.npz", allow_pickle=False) as errors:
        assert errors["left"].shape == errors["right"].shape == (6, 8, 8, 3)
        assert (errors["left"].dtype, len(errors["same"])) == (np.uint8, 6)
        assert ((errors["similarity"] >= errors["threshold"]) != errors["same"]).all()


def test_worst_errors_are_half_of_each_kind_and_farthest_first(evaluator: PairEvaluator) -> None:
    result = evaluator(embed_pixels)
    distance = np.abs(result.similarity - result.threshold)
    worst = worst_errors(result, 6)
    assert np.count_nonzero(result.same[worst]) == 3
    assert (np.diff(distance[worst]) <= 0).all()
    wrong = (result.similarity >= result.threshold) != result.same
    for kind in (True, False):
        chosen = worst[result.same[worst] == kind]
        left_out = np.setdiff1d(np.flatnonzero(wrong & (result.same == kind)), chosen)
        assert distance[chosen].min() >= distance[left_out].max()
    every = worst_errors(result, 10**6)
    np.testing.assert_array_equal(np.sort(every), np.flatnonzero(wrong))


def test_a_place_that_cannot_be_written_is_said(evaluator: PairEvaluator, tmp_path: Path) -> None:
    (tmp_path / "evaluation").write_text("a file where a folder is wanted")
    with pytest.raises(WriteError, match=r"cannot write .*errno"):
        write_evaluation(tmp_path / "evaluation", evaluator.pairs, evaluator(embed_pixels))


def test_whitened_pixels_equal_scikit_learn_pca() -> None:
    source = CodedSource([5] * 30)
    baseline = fit_whitened_pixels(source, components=20, size=8)
    images = source.load(np.arange(len(source)))
    grey = grey_pixels(images, size=8).double().numpy()
    mirrored = grey_pixels(images.flip(2), size=8).double().numpy()
    pca = PCA(n_components=20, whiten=True, svd_solver="full").fit(grey)
    expected = pca.transform(grey) + pca.transform(mirrored)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = baseline(images).numpy()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_whitened_pixels_fit_on_a_sample_and_refuse_one_image() -> None:
    source = CodedSource([5] * 30)
    again = [fit_whitened_pixels(source, max_images=50, seed=3, size=8) for _ in range(2)]
    assert again[0].projection.shape == (64, 64)
    np.testing.assert_array_equal(again[0].projection, again[1].projection)
    with pytest.raises(DataError, match="at least 2 training images"):
        fit_whitened_pixels(CodedSource([1]))


def test_whitened_pixels_survive_equal_images() -> None:
    source = CodedSource([20], noise=0)
    baseline = fit_whitened_pixels(source, components=5, size=8)
    assert baseline(source.load(np.arange(20))).isfinite().all()


def test_grey_pixels_average_over_areas() -> None:
    images = numpy_generator(0, "grey").integers(0, 256, size=(2, 8, 8, 3), dtype=np.uint8)
    source = CodedSource([1])
    source._images = source._images.new_tensor(images)
    grey = grey_pixels(source._images, size=4).reshape(2, 4, 4).numpy()
    luma = images @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(grey, luma.reshape(2, 4, 2, 4, 2).mean((2, 4)), atol=1e-6)
    np.testing.assert_allclose(grey_pixels(source._images, size=16).mean(), luma.mean(), atol=1e-6)


def test_overlap_is_found_by_name_whatever_its_spelling() -> None:
    train = iter(["Jos\u00e9_Serra", "ann lee", "Bob"])
    test = ["Ann_Lee", "Jose\u0301 Serra", "Carl"]
    found = identity_overlap(train, test)
    assert found == ["Ann_Lee", "Jose\u0301 Serra"]
    warning = overlap_warning(found, num_test=3, name="lfw")
    assert warning is not None
    assert warning.startswith("2 of the 3 people of lfw are in the training data too (Ann_Lee, ")
    assert overlap_warning([], num_test=3, name="lfw") is None


@pytest.mark.parametrize("kind", [True, False])
def test_a_set_of_one_kind_is_refused_before_anything_is_embedded(kind: bool) -> None:
    both = synthetic_pairs(CodedSource([4] * 40), num_pairs=200, folds=5, seed=0)
    pairs = replace(both, same=np.full(len(both), kind))
    with pytest.raises(DataError, match="needs both kinds"):
        PairEvaluator(pairs)


def test_people_who_are_not_named_are_not_written(tmp_path: Path) -> None:
    """A report would draw one 'person' for each pair, and call that people."""
    source = CodedSource([2] * 20)
    pairs = bin_pairs(source, np.arange(20) % 2 == 0, folds=2, name="lfw")
    write_evaluation(tmp_path, pairs, PairEvaluator(pairs, (0.5,), resamples=0)(embed_pixels))
    with np.load(tmp_path / "lfw.npz") as found:
        assert set(found) == {"similarity", "same", "fold", "left", "right"}

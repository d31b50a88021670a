"""insightface's figures of a .bin: the fast ones against the transcription, and against scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline, interp1d

from manyface.backbones import create_backbone
from manyface.base.errors import DataError, NonFiniteError
from manyface.base.random import numpy_generator
from manyface.data.bin_file import BinRecords, read_bin
from manyface.data.images import DecodedImages
from manyface.evaluate import PairEvaluator, bin_pairs, make_embed_function
from manyface.evaluate.bin_score import bin_score
from manyface.testing import insightface_verification as theirs

from .conftest import CodedSource, embed_pixels, real_file


def embeddings(seed: int, pairs: int, *, noise: float = 1.2, steps: int = 0) -> tuple:
    """Rows 2i and 2i + 1 of the pairs, and whether they are of one person."""
    rng = numpy_generator(seed, "bin")
    same = np.arange(pairs) % 2 == 0 if steps == 0 else rng.random(pairs) < 0.5
    left = rng.normal(size=(pairs, 16))
    right = np.where(
        same[:, None], left + noise * rng.normal(size=left.shape), rng.normal(size=left.shape)
    )
    both = np.stack([left, right], axis=1).reshape(2 * pairs, 16)
    return (np.round(both * steps) / steps if steps else both).astype(np.float32), same


@pytest.mark.parametrize("pairs, noise", [(600, 1.2), (203, 0.3), (60, 3.0)])
def test_equals_the_transcription(pairs: int, noise: float) -> None:
    both, same = embeddings(pairs, pairs, noise=noise)
    found = bin_score(both[0::2], both[1::2], same)
    np.testing.assert_array_equal(found.accuracies, theirs.accuracies(both, same))
    expected = theirs.tar_at_far(both, same)
    assert (found.tar, found.tar_std, found.far) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), steps=st.sampled_from([1, 2, 100]), pairs=st.integers(10, 40))
def test_equals_the_transcription_with_ties(seed: int, steps: int, pairs: int) -> None:
    both, same = embeddings(seed, pairs, steps=steps)
    found = bin_score(both[0::2], both[1::2], same)
    np.testing.assert_array_equal(found.accuracies, theirs.accuracies(both, same))


def test_the_interpolated_threshold_is_that_of_scipy() -> None:
    far = np.array([0.0, 0.0, 0.0004, 0.0004, 0.002, 0.002, 0.5, 1.0])
    grid = np.arange(8) / 10
    spline = BSpline.construct_fast(np.r_[far[0], far, far[-1]], grid, 1)
    assert theirs.threshold_at(far, grid, 1e-3) == pytest.approx(float(spline(1e-3)), abs=1e-15)
    distinct = np.array([0.0, 0.0003, 0.0008, 0.003, 0.5, 0.7, 0.8, 1.0])
    expected = float(interp1d(distinct, grid, kind="slinear")(1e-3))
    assert theirs.threshold_at(distinct, grid, 1e-3) == pytest.approx(expected, abs=1e-15)
    assert theirs.threshold_at(distinct[:2], grid[:2], 1e-3) == 0.0


def test_a_fold_without_different_pairs_has_no_tar() -> None:
    both, same = embeddings(0, 20)
    found = bin_score(both[0::2], both[1::2], np.ones_like(same))
    assert found.tar is None
    assert len(found.accuracies) == 10


def test_too_few_pairs_or_unequal_sides_are_said() -> None:
    both, same = embeddings(0, 9)
    with pytest.raises(DataError, match="at least 10 pairs"):
        bin_score(both[0::2], both[1::2], same)
    with pytest.raises(DataError, match="got 20 and 19"):
        bin_score(np.ones((20, 2)), np.ones((19, 2)), np.ones(20, bool))


def test_pairs_of_a_bin_have_both_figures() -> None:
    source = CodedSource([2] * 40, noise=150)
    images = np.argsort(source._labels, kind="stable")
    images[2::4], images[3::4] = images[3::4], np.roll(images[2::4], 1)  # every other one is of two
    source._images = source._images[torch.from_numpy(images)]
    same = source._labels[images][0::2] == source._labels[images][1::2]
    result = PairEvaluator(bin_pairs(source, same, name="x"), resamples=0)(embed_pixels)
    both = embed_pixels(source._images).numpy()
    expected = theirs.accuracies(both, same)
    assert result.value("accuracy (insightface)") == pytest.approx(expected.mean(), abs=1e-12)
    assert result.value("accuracy_std (insightface)") == pytest.approx(expected.std(), abs=1e-12)
    tar = theirs.tar_at_far(both, same)[0]
    assert result.value("tar (insightface)") == pytest.approx(tar, abs=1e-12)
    assert set(result.summary()["tar_at_far"]) == {"0.1"}  # theirs is not among ours


def test_few_pairs_have_ours_alone() -> None:
    source = CodedSource([2] * 4, noise=10)
    same = np.array([True, False, True, False])
    result = PairEvaluator(bin_pairs(source, same, folds=2, name="x"), resamples=0)(embed_pixels)
    assert result.value("accuracy (insightface)") is None
    assert "4 pairs are too few for insightface's 10 folds: no such score" in result.notes


def test_the_real_file_is_scored_as_insightface_scores_it() -> None:
    path = real_file("format-samples/arcface_paddle-test_tipc/small_lfw.bin")
    pairs = read_bin(path)
    source = DecodedImages(BinRecords(path, pairs), image_size=112)
    net = create_backbone("small", embedding_size=32)
    both = make_embed_function(net)(source.load(np.arange(20))).numpy()
    found = bin_score(both[0::2], both[1::2], pairs.same)
    np.testing.assert_allclose(found.accuracies, theirs.accuracies(both, pairs.same), atol=1e-6)
    assert found.tar is None  # ten same pairs, none different: their evaluator ends there
    # The same images, answers that have both kinds in each fold.
    doubled = np.concatenate([both, both, np.roll(both, 2, axis=0), both])
    answers = np.arange(40) % 4 < 2
    found = bin_score(doubled[0::2], doubled[1::2], answers)
    np.testing.assert_array_equal(found.accuracies, theirs.accuracies(doubled, answers))
    expected = theirs.tar_at_far(doubled, answers)
    assert (found.tar, found.tar_std, found.far) == pytest.approx(expected, abs=1e-12)


def test_embeddings_that_are_no_numbers_are_said() -> None:
    left, right, same = np.ones((20, 4)), np.ones((20, 4)), np.arange(20) % 2 == 0
    left[7] = np.nan
    with pytest.raises(NonFiniteError, match="embedding of pair 7"):
        bin_score(left, right, same)

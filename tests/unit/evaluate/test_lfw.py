"""LFW with real faces: our accuracy is that of trying every threshold, to the last pair."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from manyface.data.images import DecodedImages
from manyface.data.records import open_records
from manyface.evaluate import PairEvaluator, embed_source, lfw_pairs
from manyface.evaluate.baselines import grey_pixels

from .conftest import real_file


def embed_grey(images: torch.Tensor) -> torch.Tensor:
    grey = grey_pixels(images, size=16) + grey_pixels(images.flip(2), size=16)
    return torch.nn.functional.normalize(grey - grey.mean(dim=1, keepdim=True), dim=1)


def brute_fold(similarity: np.ndarray, same: np.ndarray, test: np.ndarray) -> int:
    """Pairs of the fold `test` decided rightly, as a script with scikit-learn would: of the best
    thresholds on the others the middle one, halfway to the next similarity."""
    train = ~test
    far, tar, thresholds = roc_curve(same[train], similarity[train], drop_intermediate=False)
    num_same, num_different = same[train].sum(), (~same[train]).sum()
    right = np.rint(tar * num_same + (1 - far) * num_different).astype(int)
    best = np.flatnonzero(right == right.max())
    cut = best[(len(best) - 1) // 2]
    threshold = thresholds[cut] - (thresholds[cut] - thresholds[cut + 1]) / 2
    return int(((similarity[test] >= threshold) == same[test]).sum())


def test_accuracy_on_lfw_is_that_of_brute_force() -> None:
    records = open_records(real_file("lfw-112.tar"))
    source = DecodedImages(records, image_size=112)
    pairs = lfw_pairs(source, records.read_text("lfw-lists/pairs.txt"))
    both = np.concatenate([pairs.left, pairs.right])
    assert (len(pairs), len(np.unique(both))) == (6000, 7701)
    left, right = np.split(embed_source(embed_grey, source, both), 2)
    similarity = np.einsum("pd,pd->p", left.astype(float), right).astype(np.float32)
    result = PairEvaluator(pairs, resamples=0).score(similarity)
    decided = (result.similarity >= result.threshold) == result.same
    found = [int(decided[pairs.fold == k].sum()) for k in range(10)]
    assert found == [brute_fold(similarity, pairs.same, pairs.fold == k) for k in range(10)]
    assert result.value("accuracy") == pytest.approx(sum(found) / 6000, abs=1e-12)
    assert 0.6 < sum(found) / 6000 < 0.8

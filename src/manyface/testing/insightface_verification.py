"""insightface's score of a verification set, step by step (arcface_torch `eval/verification.py`).

As there: squared distance of unit embeddings, folds in order, thresholds from 0 in steps, a pair is
"same" when its distance is below the threshold, the first of the best thresholds decides. The TAR
is read off at a threshold that scipy's first-order spline gives for the wished FAR; that spline
goes through every (FAR, threshold), many of which share their FAR. scipy refuses such points today
("Expect x to not have duplicates"); when it took them, the line went from the last threshold whose
FAR is not above the wished one to the next threshold.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def squared_distances(embeddings: Floats) -> Floats:
    """Of rows 2i and 2i + 1, after scaling all to unit length."""
    unit = np.array([row / (np.sqrt(row @ row) or 1.0) for row in embeddings.astype(np.float64)])
    return np.array([np.sum(np.square(a - b)) for a, b in zip(unit[0::2], unit[1::2], strict=True)])


def folds_in_order(count: int, folds: int) -> Iterator[tuple[Bools, Bools]]:
    """(training, test) masks of scikit-learn's KFold without shuffling."""
    sizes = [count // folds + (1 if k < count % folds else 0) for k in range(folds)]
    start = 0
    for size in sizes:
        test = np.zeros(count, bool)
        test[start : start + size] = True
        yield ~test, test
        start += size


def accuracy(threshold: float, distance: Floats, same: Bools) -> float:
    """Share of pairs that are decided rightly."""
    right = sum((d < threshold) == s for d, s in zip(distance, same, strict=True))
    return float(right) / len(distance)


def accuracies(embeddings: Floats, same: Bools, folds: int = 10) -> Floats:
    """Of each fold, at the first best of the thresholds 0, 0.01, ... 3.99 of the others."""
    distance = squared_distances(embeddings)
    thresholds = np.arange(0, 4, 0.01)
    found = []
    for train, test in folds_in_order(len(same), folds):
        on_train = [accuracy(t, distance[train], same[train]) for t in thresholds]
        best = int(np.argmax(on_train))
        found.append(accuracy(thresholds[best], distance[test], same[test]))
    return np.array(found)


def tar_and_far(threshold: float, distance: Floats, same: Bools) -> tuple[float, float]:
    """Shares of same and of different pairs below the threshold."""
    accepted = distance < threshold
    tar = float(np.sum(accepted & same)) / float(np.sum(same))
    return tar, float(np.sum(accepted & ~same)) / float(np.sum(~same))


def threshold_at(far: Floats, thresholds: Floats, wished: float) -> float:
    """The threshold that a first-order spline through (far, threshold) gives; 0 out of reach."""
    if np.max(far) < wished:
        return 0.0
    last = max(k for k in range(len(far)) if far[k] <= wished)
    if last == len(far) - 1:
        return float(thresholds[last])
    share = (wished - far[last]) / (far[last + 1] - far[last])
    return float(thresholds[last] + share * (thresholds[last + 1] - thresholds[last]))


def tar_at_far(
    embeddings: Floats, same: Bools, wished: float = 1e-3, folds: int = 10
) -> tuple[float, float, float]:
    """Mean and spread of the TAR of each fold, mean FAR; thresholds 0, 0.001, ... 3.999."""
    distance = squared_distances(embeddings)
    thresholds = np.arange(0, 4, 0.001)
    tars, fars = [], []
    for train, test in folds_in_order(len(same), folds):
        far_train = np.array([tar_and_far(t, distance[train], same[train])[1] for t in thresholds])
        threshold = threshold_at(far_train, thresholds, wished)
        tar, far = tar_and_far(threshold, distance[test], same[test])
        tars.append(tar)
        fars.append(far)
    return float(np.mean(tars)), float(np.std(tars)), float(np.mean(fars))

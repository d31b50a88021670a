"""insightface's own figures of a verification set (`.bin`), from the same embeddings.

Their rule (arcface_torch `eval/verification.py`; `testing/insightface_verification.py` has it step
by step): squared distance of unit embeddings, 10 folds in the order of the set, thresholds 0 to 4
in steps of 0.01, the first that decides most pairs of the other folds rightly. It is coarse, and so
not ours; it is given beside ours because published figures were made with it. Here every step of
the grid is counted at once: distances are sorted once for each fold and kind of pair.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.evaluate.metrics import finite_rows
from manyface.evaluate.result import FloatArray, Score

FOLDS = 10
FAR = 1e-3
SUFFIX = "(insightface)"


@dataclass(frozen=True)
class BinScore:
    """Attributes:
    accuracies, thresholds: of each fold, float64 [10]; thresholds are squared distances.
    tar, tar_std, far: means and spread at FAR 0.001; None where a fold lacks a kind of pair, for
        which their evaluator divides by zero.
    """

    accuracies: FloatArray
    thresholds: FloatArray
    tar: float | None
    tar_std: float | None
    far: float | None


def bin_score(
    left: npt.NDArray[np.floating], right: npt.NDArray[np.floating], same: npt.NDArray[np.bool_]
) -> BinScore:
    """Their figures of the pairs of `left` and `right`, both [P, D], P at least 10.

    Raises:
        DataError: lengths differ, or there are fewer pairs.
        NonFiniteError: an embedding is not finite: it would count as a pair that is rejected.
    """
    if not len(left) == len(right) == len(same) or len(same) < FOLDS:
        raise DataError(
            f"insightface's score needs two embeddings for each of at least {FOLDS} pairs, got "
            f"{len(left)} and {len(right)} for {len(same)} pairs"
        )
    distance = np.square(_unit(left) - _unit(right)).sum(axis=1)  # [P]
    fold = np.repeat(np.arange(FOLDS), [len(x) for x in np.array_split(same, FOLDS)])
    accuracies, thresholds = _accuracies(distance, same, fold)
    return BinScore(accuracies, thresholds, *_tar_at_far(distance, same, fold))


def bin_scores(
    left: npt.NDArray[np.floating], right: npt.NDArray[np.floating], same: npt.NDArray[np.bool_]
) -> tuple[list[Score], list[str]]:
    """The figures as scores, and notes of what has none."""
    if len(same) < FOLDS:
        return [], [f"{len(same)} pairs are too few for insightface's {FOLDS} folds: no such score"]
    found = bin_score(left, right, same)
    rule = f"insightface's rule: {FOLDS} folds in order, squared distance, thresholds in steps of"
    scores = [
        Score(f"accuracy {SUFFIX}", float(found.accuracies.mean()), None, None, f"{rule} 0.01"),
        Score(f"accuracy_std {SUFFIX}", float(found.accuracies.std()), None, None, f"{rule} 0.01"),
    ]
    if found.tar is None:
        return scores, ["a fold lacks same or different pairs: no TAR by insightface's rule"]
    protocol = f"{rule} 0.001, threshold interpolated at FAR {FAR:g}; measured FAR {found.far:.2g}"
    return [*scores, Score(f"tar {SUFFIX}", found.tar, None, None, protocol)], []


def _unit(rows: npt.NDArray[np.floating]) -> FloatArray:
    rows64 = finite_rows(rows)
    lengths = np.linalg.norm(rows64, axis=1, keepdims=True)
    return np.asarray(rows64 / np.where(lengths > 0, lengths, 1.0))


def _accepted(
    distance: FloatArray,
    chosen: npt.NDArray[np.bool_],
    fold: npt.NDArray[np.int64],
    grid: FloatArray,
) -> npt.NDArray[np.int64]:
    """How many chosen pairs of each fold lie below each threshold, [10, T]."""
    return np.stack(
        [np.searchsorted(np.sort(distance[chosen & (fold == k)]), grid) for k in range(FOLDS)]
    )


def _counts(chosen: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.bincount(fold[chosen], minlength=FOLDS)


def _accuracies(
    distance: FloatArray, same: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    grid = np.arange(0, 4, 0.01)
    of_same = _accepted(distance, same, fold, grid)  # [10, T]
    of_different = _accepted(distance, ~same, fold, grid)
    right = of_same + _counts(~same, fold)[:, None] - of_different  # [10, T] decided rightly
    best = np.argmax(right.sum(axis=0) - right, axis=1)  # [10] the first best of the other folds
    sizes = np.bincount(fold, minlength=FOLDS)
    return right[np.arange(FOLDS), best] / sizes, grid[best]


def _tar_at_far(
    distance: FloatArray, same: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]
) -> tuple[float, float, float] | tuple[None, None, None]:
    grid = np.arange(0, 4, 0.001)
    num_same, num_different = _counts(same, fold), _counts(~same, fold)
    if not num_same.all() or not num_different.all():
        return None, None, None
    of_different = _accepted(distance, ~same, fold, grid)  # [10, T]
    others = num_different.sum() - num_different  # [10]
    far_of_others = (of_different.sum(axis=0) - of_different) / others[:, None]
    tars, fars = np.empty(FOLDS), np.empty(FOLDS)
    for k in range(FOLDS):
        accepted = distance < _threshold_at(far_of_others[k], grid)
        tars[k] = np.count_nonzero(accepted & same & (fold == k)) / num_same[k]
        fars[k] = np.count_nonzero(accepted & ~same & (fold == k)) / num_different[k]
    return float(tars.mean()), float(tars.std()), float(fars.mean())


def _threshold_at(far: FloatArray, grid: FloatArray) -> float:
    """On the line from the last threshold whose FAR is not above the wished one to the next."""
    if far[-1] < FAR:  # out of reach: they accept nobody
        return 0.0
    last = int(np.searchsorted(far, FAR, side="right")) - 1
    if last == len(far) - 1:
        return float(grid[last])
    share = (FAR - far[last]) / (far[last + 1] - far[last])
    return float(grid[last] + share * (grid[last + 1] - grid[last]))

"""Verification metrics of scored pairs: pure functions, exact at ties, no grid of thresholds.

A pair is accepted ("the same person") when its similarity is at or above the threshold. Pairs with
equal similarity stand or fall together, so the possible decisions are the U + 1 cuts between U
distinct similarities, from "accept none" to "accept all"; every function here walks these cuts.

    P  pairs      FAR  share of different pairs accepted      TAR  share of same pairs accepted

`Tally` counts what each cut accepts, each pair `weights` times: the bootstrap resamples pairs
without sorting them again. Without weights all sums are of integers below 2^53, so the results are
exact up to one division.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, NonFiniteError

FloatArray = npt.NDArray[np.float64]
Similarities = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

# far * impostors can miss a whole number by rounding (0.1 * 30 = 3.0000000000000004).
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Cuts:
    """The pairs sorted by falling similarity, and where each run of equal similarities ends."""

    order: IntArray  # [P] pair indices, most similar first
    ends: IntArray  # [U] position in `order` of the last pair of each distinct similarity
    similarity: Similarities  # [U] the distinct similarities, falling, in the dtype given
    same: BoolArray  # [P] in the order of `order`


@dataclass(frozen=True)
class Roc:
    """Cut c accepts the pairs with similarity >= thresholds[c]; cut 0 accepts none."""

    far: FloatArray  # [U + 1] rising from 0 to 1
    tar: FloatArray  # [U + 1] rising from 0 to 1
    thresholds: FloatArray  # [U + 1] falling from infinity


@dataclass(frozen=True)
class FoldAccuracy:
    """Accuracy of each fold at the threshold that the other folds chose."""

    accuracies: FloatArray  # [K]
    thresholds: FloatArray  # [K]
    correct: BoolArray  # [P] the decision on each pair, at its own fold's threshold
    threshold_of_pair: FloatArray  # [P]

    @property
    def mean(self) -> float:
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation over folds (divisor K), the figure printed after +- in this field."""
        return float(self.accuracies.std())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean as LFW defines it: std with divisor K - 1, over sqrt(K)."""
        return float(self.accuracies.std(ddof=1) / np.sqrt(len(self.accuracies)))


def cosine_scores(left: Similarities, right: Similarities) -> FloatArray:
    """Cosine of row i of `left` and row i of `right`, both [P, D]; 0 where a row is all zeros.

    Raises:
        NonFiniteError: a row is not finite: its length would pass for 0.
    """
    left64, right64 = finite_rows(left), finite_rows(right)
    norms = np.linalg.norm(left64, axis=1) * np.linalg.norm(right64, axis=1)  # [P]
    dots = np.einsum("pd,pd->p", left64, right64)  # [P]
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return np.asarray(np.clip(cosines, -1.0, 1.0), dtype=np.float64)


def finite_rows(embeddings: Similarities) -> FloatArray:
    """`embeddings` [P, D] as float64; NonFiniteError names the first row that is not finite."""
    rows = embeddings.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"the embedding of pair {bad[0]} is not finite ({len(bad)} of {len(rows)}): the "
            "network's weights or activations overflow"
        )
    return rows


def sort_into_cuts(similarity: Similarities, same: BoolArray) -> Cuts:
    """Sort once; every metric and every bootstrap resample reads the same cuts."""
    if similarity.shape != same.shape or similarity.ndim != 1:
        raise DataError(
            f"similarity and same must be two vectors of one length, "
            f"got shapes {similarity.shape} and {same.shape}"
        )
    if not np.isfinite(similarity).all():
        bad = int(np.flatnonzero(~np.isfinite(similarity))[0])
        raise DataError(f"the similarity of pair {bad} is {similarity[bad]}: it must be finite")
    order = np.argsort(-similarity, kind="stable")
    falling = similarity[order]
    ends = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1) if len(falling) else order
    return Cuts(order=order, ends=ends, similarity=falling[ends], same=same[order].astype(bool))


@dataclass(frozen=True)
class Tally:
    """Weight of the same and of the different pairs that each cut accepts, both rising from 0."""

    of_same: FloatArray  # [U + 1]
    of_different: FloatArray  # [U + 1]


def tally(cuts: Cuts, weights: npt.NDArray[Any] | None = None) -> Tally:
    """Count every cut's accepted pairs, each `weights` [P] times (default once)."""
    weight = np.ones(len(cuts.order)) if weights is None else weights[cuts.order]
    of_same = np.where(cuts.same, weight, 0.0)
    return Tally(_at_cuts(of_same, cuts.ends), _at_cuts(weight - of_same, cuts.ends))


def tally_sorted(similarity: Similarities, same: BoolArray) -> Tally:
    """`tally` of the cuts of many pairs by one sort of numbers, which is several times as fast as
    the sort of places that `sort_into_cuts` needs; without weights."""
    rising = np.sort(similarity)
    genuine = np.sort(similarity[same])
    begins = np.append(True, np.diff(rising) > 0) if len(rising) else np.zeros(0, bool)
    starts = np.flatnonzero(begins)[::-1]  # [U] of each run of equal similarities, highest first
    accepted = len(rising) - starts
    of_same = len(genuine) - np.searchsorted(genuine, rising[starts][::-1])[::-1]
    return Tally(
        np.append(0.0, of_same.astype(np.float64)), np.append(0.0, (accepted - of_same) * 1.0)
    )


def _at_cuts(weight: FloatArray, ends: IntArray) -> FloatArray:
    return np.append(0.0, np.cumsum(weight)[ends])


def roc_points(similarity: Similarities, same: BoolArray) -> Roc:
    """Every point of the ROC curve, one per cut. Needs at least one pair of each kind."""
    cuts = sort_into_cuts(similarity, same)
    counted = _both_kinds(tally(cuts))
    return Roc(
        far=counted.of_different / counted.of_different[-1],
        tar=counted.of_same / counted.of_same[-1],
        thresholds=np.append(np.inf, cuts.similarity.astype(np.float64)),
    )


def auc(similarity: Similarities, same: BoolArray) -> float:
    """Area under the ROC by trapezoids = P(same > different) + P(equal) / 2 (Mann-Whitney)."""
    return auc_of_tally(tally(sort_into_cuts(similarity, same)))


def auc_of_tally(counted: Tally) -> float:
    """`auc` of pairs that are counted already."""
    of_same, of_different = _both_kinds(counted).of_same, counted.of_different
    doubled = np.sum(np.diff(of_different) * (of_same[1:] + of_same[:-1]))
    return float(doubled / (2.0 * of_same[-1] * of_different[-1]))


def tar_at_far(similarity: Similarities, same: BoolArray, far: float) -> float | None:
    """TAR at the lowest threshold whose measured FAR is not above `far` (conservative, no
    interpolation); None where there are fewer different pairs than 1 / far (not extrapolated)."""
    if far < smallest_far(same) * (1 - _ROUNDING):
        return None
    return tar_at_far_of_tally(tally(sort_into_cuts(similarity, same)), far)


def tar_at_far_of_tally(counted: Tally, far: float) -> float:
    """`tar_at_far` of pairs that are counted already, without the check of their number."""
    of_same, of_different = _both_kinds(counted).of_same, counted.of_different
    allowed = far * of_different[-1] + _ROUNDING
    cut = int(np.searchsorted(of_different, allowed, side="right")) - 1
    return float(of_same[cut] / of_same[-1])


def allowed_impostors(far: float, num_impostors: int) -> int:
    """How many of the impostors may be accepted at FAR `far`: never a share above it."""
    if not 0 < far <= 1:
        raise DataError(f"each FAR must be in (0, 1], got {far}")
    # far * num_impostors misses a whole number by far less than 1e-12 of itself.
    return min(num_impostors, int(far * num_impostors * (1 + 1e-12) + _ROUNDING))


def tar_at_nearest_far(counted: Tally, far: float) -> float:
    """TAR of the ROC point whose FAR is nearest to `far`, as scripts for IJB take it.

    That FAR may be above the wished one. The points are those of scikit-learn's `roc_curve`, which
    leaves out points between two others on a line; of equally near ones the last counts.
    """
    of_same, of_different = _both_kinds(counted).of_same[1:], counted.of_different[1:]
    if len(of_same) > 2:
        bends = (np.diff(of_different, 2) != 0) | (np.diff(of_same, 2) != 0)
        kept = np.concatenate([[True], bends, [True]])
        of_same, of_different = of_same[kept], of_different[kept]
    far_of_points = np.append(0.0, of_different / of_different[-1])
    nearest = len(far_of_points) - 1 - int(np.argmin(np.abs(far_of_points - far)[::-1]))
    return float(np.append(0.0, of_same / of_same[-1])[nearest])


def smallest_far(same: BoolArray) -> float:
    """The smallest FAR that these pairs can show: one accepted pair out of all different ones."""
    num_different = int(np.count_nonzero(~same))
    return 1.0 / num_different if num_different else np.inf


def best_threshold(similarity: Similarities, same: BoolArray) -> float:
    """The threshold that decides most pairs rightly, found over all cuts.

    It lies halfway between the two neighbouring similarities. Of equally good cuts the middle one
    is taken, so that neither end of a wide gap is favoured.
    """
    cuts = sort_into_cuts(similarity, same)
    counted = tally(cuts)
    surplus = counted.of_same - counted.of_different  # correct decisions less a constant, [U + 1]
    best = np.flatnonzero(surplus == surplus.max())
    return _threshold_of_cut(cuts.similarity, int(best[(len(best) - 1) // 2]))


def kfold_accuracy(similarity: Similarities, same: BoolArray, fold: IntArray) -> FoldAccuracy:
    """Accuracy of each fold at `best_threshold` of all other folds (LFW's View 2 procedure)."""
    names = np.unique(fold)
    if len(names) < 2 or fold.shape != same.shape:
        raise DataError(
            f"k-fold accuracy needs a fold number for each of {len(same)} pairs and at least 2 "
            f"folds, got {len(fold)} numbers in {len(names)} fold(s)"
        )
    thresholds = np.array([best_threshold(similarity[fold != k], same[fold != k]) for k in names])
    threshold_of_pair = thresholds[np.searchsorted(names, fold)]  # [P]
    correct = (similarity >= threshold_of_pair) == same  # [P]
    accuracies = np.array([correct[fold == k].mean() for k in names])
    return FoldAccuracy(accuracies, thresholds, correct, threshold_of_pair)


def _threshold_of_cut(falling: Similarities, cut: int) -> float:
    """A finite threshold that accepts exactly the `cut` greatest of the distinct similarities.

    Computed in their dtype: numpy rounds a Python float to the dtype of the array it is compared
    with, so a float64 just above a float32 similarity would accept it.
    """
    if not len(falling):
        raise DataError("a threshold needs at least one pair to be chosen on, got none")
    if cut == 0:
        return float(np.nextafter(falling[0], falling.dtype.type(np.inf)))
    if cut == len(falling):
        return float(falling[-1])
    upper, lower = falling[cut - 1], falling[cut]
    halfway = lower + (upper - lower) / 2
    # Between two neighbouring floats there is nothing: `upper` itself is then the threshold.
    return float(halfway if halfway > lower else upper)


def _both_kinds(counted: Tally) -> Tally:
    if counted.of_same[-1] <= 0 or counted.of_different[-1] <= 0:
        raise DataError(
            "a ROC curve needs pairs of the same person and of different people, "
            f"got {counted.of_same[-1]:g} and {counted.of_different[-1]:g}"
        )
    return counted

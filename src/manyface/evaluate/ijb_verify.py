"""IJB-B and IJB-C 1:1: is the person of one template that of another, over millions of pairs.

TAR is given twice. `tar@far=F` is ours: the lowest threshold whose FAR is not above F, as
everywhere here. `tar@far=F (nearest ROC point)` is the field's (insightface's `eval_ijbc.py`): the
point of the ROC whose FAR is nearest to F, which may be above it; compare published figures with
this one, and only of the same variant (`templates.py`).

People of the pairs are not named in the files; those whom same pairs connect are one person.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.evaluate import metrics
from manyface.evaluate.ijb_files import SIZES, TemplatePairs
from manyface.evaluate.metrics import FloatArray
from manyface.evaluate.result import ProtocolResult, Score
from manyface.evaluate.tails import Tail, longest, tail_curve, tail_scores
from manyface.evaluate.templates import Templates, pair_cosines

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
NEAREST = "(nearest ROC point)"
# Up to which FAR there are intervals: above it nearly all pairs would be resampled.
_FAR_OF_INTERVALS = 1e-2
_LARGEST_TABLE = 1 << 24  # cells of a table of people against people


def verify_templates(
    templates: Templates,
    pairs: TemplatePairs,
    *,
    name: str,
    variant: str = "",
    fars: Sequence[float] = FARS,
    resamples: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProtocolResult:
    """TAR at each of `fars` over the pairs, ours and the field's.

    Args:
        name: "ijbb" or "ijbc" are checked against the published sizes.
        variant: of the pooling, for the record.
        resamples: of people, for the intervals of FARs up to 0.01; 0 leaves them out.

    Raises:
        DataError: a pair names a template without faces, pairs are all of one kind, or one pair is
            said to be of one person and of two.
    """
    notes = check_pairs(pairs) + _size_notes(name, templates, pairs)
    left = templates.rows_of(pairs.left, "pairs")
    right = templates.rows_of(pairs.right, "pairs")
    similarity = pair_cosines(templates.vectors, left, right, progress=progress)
    size = f"{np.count_nonzero(pairs.same)} same and {np.count_nonzero(~pairs.same)} different"
    protocol = " ".join(filter(None, ["1:1 cosine of templates", variant])) + f"; {size} pairs"
    nearest = _nearest_scores(similarity, pairs.same, fars, protocol)
    person = people_of_pairs(left, right, pairs.same, len(templates.ids))
    tail = _tail_of_pairs(similarity, pairs.same, person[left], person[right], fars)
    rule = f"lowest threshold whose FAR is not above the stated one; {protocol}"
    large = [far for far in fars if far > _FAR_OF_INTERVALS]
    small = [far for far in fars if far <= _FAR_OF_INTERVALS]
    scores, more = tail_scores(tail, large, protocol=rule, resamples=0)
    found, said = tail_scores(
        _shortened(tail, small), small, protocol=rule, resamples=resamples, seed=seed
    )
    return ProtocolResult(
        name, protocol, scores + found + nearest, notes + more + said, [tail_curve(tail)]
    )


def _nearest_scores(
    similarity: FloatArray, same: npt.NDArray[np.bool_], fars: Sequence[float], protocol: str
) -> list[Score]:
    counted = metrics.tally_sorted(similarity, same)
    num_impostors = int(np.count_nonzero(~same))
    return [
        Score(
            f"tar@far={far:g} {NEAREST}",
            metrics.tar_at_nearest_far(counted, far),
            None,
            None,
            f"ROC point whose FAR is nearest to the stated one, above it or not; {protocol}",
        )
        for far in fars
        if metrics.allowed_impostors(far, num_impostors)  # else the nearest one may be FAR 0
    ]


def check_pairs(pairs: TemplatePairs) -> list[str]:
    """Notes of pairs that are listed twice; DataError where the answers differ."""
    low, high = np.minimum(pairs.left, pairs.right), np.maximum(pairs.left, pairs.right)
    key = (low.astype(np.int64) << 32) | high
    if (np.diff(np.sort(key)) > 0).all():
        return []
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(np.diff(key[order]) == 0)
    torn = again[pairs.same[order[again]] != pairs.same[order[again + 1]]]
    if len(torn):
        first = order[torn[0]]
        raise DataError(
            f"templates {pairs.left[first]} and {pairs.right[first]} are listed as one person and "
            "as two: the list of pairs is damaged; fetch the meta files again"
        )
    first = order[again[0]]
    return [
        f"{len(again)} pairs are listed more than once (the first is {pairs.left[first]} and "
        f"{pairs.right[first]}) and count as often"
    ]


def _size_notes(name: str, templates: Templates, pairs: TemplatePairs) -> list[str]:
    if name not in SIZES:
        return []
    _, num_templates, num_pairs = SIZES[name]
    found, published = (len(templates.ids), len(pairs)), (num_templates, num_pairs)
    if found == published:
        return []
    return [
        f"{found[0]} templates and {found[1]} pairs; {name} as published has {published[0]} and "
        f"{published[1]}: not comparable with published figures"
    ]


def people_of_pairs(
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    same: npt.NDArray[np.bool_],
    num_templates: int,
) -> npt.NDArray[np.int32]:
    """A number for each template's person: those whom same pairs connect have one number."""
    left, right = left[same], right[same]
    person = np.arange(num_templates)
    while True:  # the smallest number of a group spreads to all of it
        smaller = person.copy()
        np.minimum.at(smaller, left, person[right])
        np.minimum.at(smaller, right, smaller[left])
        smaller = smaller[smaller]
        if (smaller == person).all():
            return np.unique(person, return_inverse=True)[1].reshape(-1).astype(np.int32)
        person = smaller


def _tail_of_pairs(
    similarity: FloatArray,
    same: npt.NDArray[np.bool_],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    fars: Sequence[float],
) -> Tail:
    """`left` and `right` are people."""
    genuine, impostor = np.flatnonzero(same), np.flatnonzero(~same)
    genuine = genuine[np.argsort(-similarity[genuine], kind="stable")]
    lowest_first = similarity[impostor]
    kept = longest(fars, len(impostor), spare=1) if len(impostor) else 0
    if kept < len(impostor):
        limit = np.partition(lowest_first, len(impostor) - kept)[len(impostor) - kept]
        impostor = impostor[lowest_first >= limit]
    top = impostor[np.argsort(-similarity[impostor], kind="stable")]
    num_people = int(max(left.max(), right.max())) + 1
    return Tail(
        genuine=similarity[genuine],
        genuine_people=left[genuine],
        impostors=similarity[top],
        num_impostors=len(same) - len(genuine),
        left=left[top],
        right=right[top],
        num_people=num_people,
        impostor_weight=_pairs_between(left[~same], right[~same], num_people),
    )


def _shortened(tail: Tail, fars: Sequence[float]) -> Tail:
    """With the impostors that `fars` need, and as many again for the resamples."""
    kept = longest(fars, tail.num_impostors)
    return replace(
        tail,
        impostors=tail.impostors[:kept],
        left=tail.left[:kept],
        right=None if tail.right is None else tail.right[:kept],
    )


def _pairs_between(
    left: npt.NDArray[np.int32], right: npt.NDArray[np.int32], num_people: int
) -> Callable[[FloatArray], float]:
    """How many of these pairs there are where each person is there so many times."""
    if num_people**2 > _LARGEST_TABLE:
        return lambda times: float(times[left] @ times[right])
    cells = np.bincount(left.astype(np.int64) * num_people + right, minlength=num_people**2)
    between = cells.reshape(num_people, num_people).astype(np.float64)
    return lambda times: float(times @ between @ times)

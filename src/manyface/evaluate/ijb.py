"""IJB-B and IJB-C: verification of template pairs (1:1) and search among templates (1:N).

1:1 is given twice. `tar@far=F` is ours: the lowest threshold whose FAR is not above F, as
everywhere here. `tar@far=F (nearest ROC point)` is the field's (insightface's `eval_ijbc.py`): the
point of the ROC whose FAR is nearest to F, which may be above it; compare published figures with
this one, and only of the same variant (`templates.py`).

1:N has two galleries of different people, and two ways of treating them:

    pooled   insightface's `ijb_1n.py`: one gallery of both, so every probe has a mate. Its TPIR
             takes as threshold the ceil(F x probes)-th highest of *all* impostor scores, and asks
             for no rank; a false positive is a pair, not a search
    apart    insightface's `ijb_evals.py`: each gallery alone; probes of the other one's people
             have no mate. Ranks over the probes of both, TPIR is the mean of both galleries. Its
             mates must exceed the floor(F x unmated)-th highest score of an unmated probe (the
             first if F is too small); ours the next lower, which is as far as F allows

People of the 1:1 pairs are not named in the files; those whom same pairs connect are one person.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import DataError
from manyface.evaluate import metrics
from manyface.evaluate.blocks import TopScores
from manyface.evaluate.identification import (
    OPEN_RULE,
    open_set_tail,
    rank_scores,
    share_scores,
)
from manyface.evaluate.ijb_files import SIZES, Subjects, TemplatePairs
from manyface.evaluate.metrics import FloatArray, IntArray
from manyface.evaluate.ranks import Searched, search
from manyface.evaluate.result import ProtocolResult, Score
from manyface.evaluate.tails import Tail, longest, tail_curve, tail_scores
from manyface.evaluate.templates import Templates, pair_cosines

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
NEAREST = "(nearest ROC point)"
RANKS = (1, 5, 10)
FPIRS = (0.1, 0.01)
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
    return [
        Score(
            f"tar@far={far:g} {NEAREST}",
            metrics.tar_at_nearest_far(counted, far),
            None,
            None,
            f"ROC point whose FAR is nearest to the stated one, above it or not; {protocol}",
        )
        for far in fars
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


def identify_templates(
    templates: Templates,
    galleries: Sequence[Subjects],
    probes: Subjects,
    *,
    name: str,
    variant: str = "",
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] = FPIRS,
    resamples: int = 200,
    seed: int = 0,
) -> ProtocolResult:
    """Ranks and TPIR at FPIR with the galleries pooled, and with each apart and averaged.

    Raises:
        DataError: a template has no face, a subject is in both galleries, or a probe in neither.
    """
    _check_subjects(galleries, probes)
    vectors = templates.vectors[templates.rows_of(probes.templates, "probes")]
    people = np.unique(probes.subjects, return_inverse=True)[1].reshape(-1)
    sides = [
        (templates.vectors[templates.rows_of(side.templates, "gallery")], side.subjects)
        for side in galleries
    ]
    num_entries = sum(len(side.templates) for side in galleries)
    of = f"{len(people)} probes, {num_entries} gallery templates" + (
        f"; {variant}" if variant else ""
    )
    most = max((ceil(len(people) * fpir) for fpir in fpirs), default=0)
    top = TopScores(most, dtype=torch.float64)
    pooled = search(vectors, probes.subjects, sides, ranks=ranks, dtype=np.float64, look=top.add)
    apart = [
        search(vectors, probes.subjects, [side], ranks=ranks, dtype=np.float64) for side in sides
    ]
    scores, notes = rank_scores(
        pooled, people, ranks, f"galleries pooled; {of}", resamples=resamples, suffix=" (pooled)"
    )
    scores += _pooled_tpir(pooled, top, people, fpirs, of, resamples, seed)
    scores += _apart_ranks(apart, people, ranks, of, resamples, seed)
    found, said = _apart_tpir(apart, people, fpirs, of, resamples, seed)
    return ProtocolResult(name, f"1:N; {of}", scores + found, notes + said)


def _check_subjects(galleries: Sequence[Subjects], probes: Subjects) -> None:
    for side in galleries:
        named, times = np.unique(side.subjects, return_counts=True)
        if (times > 1).any():
            raise DataError(
                f"subject {named[times > 1][0]} has {times.max()} templates in one gallery; "
                "expected one"
            )
    listed = np.concatenate([side.subjects for side in galleries])
    named, times = np.unique(listed, return_counts=True)
    if (times > 1).any():
        raise DataError(f"subject {named[times > 1][0]} is in both galleries; expected one of them")
    absent = np.setdiff1d(probes.subjects, listed)
    if len(absent):
        raise DataError(
            f"{len(absent)} subjects of the probes are in no gallery (the first is {absent[0]}): a "
            "list of 1:N is incomplete; fetch the meta files again"
        )


def _pooled_tpir(
    found: Searched,
    top: TopScores,
    people: IntArray,
    fpirs: Sequence[float],
    of: str,
    resamples: int,
    seed: int,
) -> list[Score]:
    """`ijb_1n.py`: mates above the ceil(F x probes)-th highest of all impostor scores."""
    impostors = top.falling()[0]
    shown = [fpir for fpir in fpirs if ceil(len(people) * fpir) <= len(impostors)]
    if not shown:
        return []
    hits = [found.mate > impostors[ceil(len(people) * fpir) - 1] for fpir in shown]
    rule = f"rule of ijb_1n.py: false positives are pairs, no rank is asked for; pooled; {of}"
    names = [f"tpir@fpir={fpir:g} (pooled, ijb_1n.py)" for fpir in shown]
    return share_scores(
        names, np.stack(hits), people, [rule] * len(shown), resamples=resamples, seed=seed
    )


def _apart_ranks(
    apart: Sequence[Searched],
    people: IntArray,
    ranks: Sequence[int],
    of: str,
    resamples: int,
    seed: int,
) -> list[Score]:
    """Each probe among the gallery that holds its mate."""
    hits = np.stack([np.any([each.found(rank) for each in apart], axis=0) for rank in ranks])
    return share_scores(
        [f"rank-{rank} (apart)" for rank in ranks],
        hits,
        people,
        [f"share of probes whose mate is among the first {k} of its gallery; {of}" for k in ranks],
        resamples=resamples,
        seed=seed,
    )


def _apart_tpir(
    apart: Sequence[Searched],
    people: IntArray,
    fpirs: Sequence[float],
    of: str,
    resamples: int,
    seed: int,
) -> tuple[list[Score], list[str]]:
    """Mean over the galleries, by our rule and by that of `ijb_evals.py`."""
    tails = [open_set_tail(each, people) for each in apart]
    scores: list[Score] = []
    notes: list[str] = []
    for fpir in fpirs:
        name = f"tpir@fpir={fpir:g} (apart)"
        few = min(tail.num_impostors for tail in tails)
        if not metrics.allowed_impostors(fpir, few):
            notes.append(f"{name} is not given: {few} unmated probes show no FPIR below 1 / {few}")
            continue
        found = [
            tail_scores(tail, [fpir], protocol="", resamples=resamples, seed=seed)[0][0]
            for tail in tails
        ]
        value = float(np.mean([score.value for score in found]))
        low, high = _ends_of_mean(found)
        scores.append(Score(name, value, low, high, f"{OPEN_RULE}; mean of the galleries; {of}"))
        theirs = float(np.mean([_ijb_evals_tpir(each, fpir) for each in apart]))
        rule = f"rule of ijb_evals.py; mean of the galleries; {of}"
        scores.append(Score(f"{name[:-1]}, ijb_evals.py)", theirs, None, None, rule))
    return scores, notes


def _ends_of_mean(scores: Sequence[Score]) -> tuple[float | None, float | None]:
    """Of independent scores: the people of the galleries are different ones."""
    values = np.array([score.value for score in scores])
    if any(score.low is None or score.high is None for score in scores):
        return None, None
    below = np.array([score.value - score.low for score in scores if score.low is not None])
    above = np.array([score.high - score.value for score in scores if score.high is not None])
    mean, count = float(values.mean()), len(scores)
    low, high = np.linalg.norm(below) / count, np.linalg.norm(above) / count
    return max(0.0, mean - float(low)), min(1.0, mean + float(high))


def _ijb_evals_tpir(found: Searched, fpir: float) -> float:
    mated = found.is_mated
    highest = np.sort(found.others[~mated, 0])[::-1]
    threshold = highest[max(int(len(highest) * fpir) - 1, 0)]
    return float((found.found(1) & (found.mate > threshold))[mated].mean())

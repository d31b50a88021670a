"""IJB-B and IJB-C 1:N: who is the person of a template, among two galleries of different people.

There are two ways of treating the galleries:

    pooled   insightface's `ijb_1n.py`: one gallery of both, so every probe has a mate. Its TPIR
             takes as threshold the ceil(F x probes)-th highest of *all* impostor scores, and asks
             for no rank; a false positive is a pair, not a search
    apart    insightface's `ijb_evals.py`: each gallery alone; probes of the other one's people
             have no mate. Ranks over the probes of both, TPIR is the mean of both galleries. Its
             mates must exceed the floor(F x unmated)-th highest score of an unmated probe (the
             first if F is too small); ours the next lower, which is as far as F allows
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
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
from manyface.evaluate.ijb_files import Subjects
from manyface.evaluate.metrics import IntArray
from manyface.evaluate.ranks import Searched, search
from manyface.evaluate.result import ProtocolResult, Score
from manyface.evaluate.tails import tail_scores
from manyface.evaluate.templates import Templates

RANKS = (1, 5, 10)
FPIRS = (0.1, 0.01)


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

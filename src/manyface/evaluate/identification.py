"""Searching people (1:N): closed set, open set, among a million distractors.

rank-k          share of mated probes whose best mate is among the first k; ties count against
TPIR at FPIR    open set. FPIR: share of probes without a mate for whom *anyone* in the gallery
                scores at or above the threshold. TPIR: share of mated probes whose mate does, and
                comes first (1 - FNIR at rank 1 of NIST's FRVT 1:N reports). The threshold is the
                lowest whose FPIR is not above the stated one; n unmated probes show none below 1/n.
MegaFace        each image of a person is the probe once for each other image of that person, which
                is alone with the distractors: rank-k; TAR at FAR of these genuine pairs against
                all pairs of a probe and a distractor
TinyFace        rank-1, 5, 20 in a gallery of mates and distractors; the best of several mates
                counts

Intervals: the probes' people are drawn with replacement, the gallery stays as it is.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.evaluate.all_pairs import count_pairs
from manyface.evaluate.blocks import TopScores, unit_rows
from manyface.evaluate.bootstrap import share_intervals
from manyface.evaluate.metrics import BoolArray, IntArray
from manyface.evaluate.ranks import Embeddings, GalleryBlock, Labels, Searched, search
from manyface.evaluate.result import ProtocolResult, Score
from manyface.evaluate.tails import Tail, check_kept, longest, tail_curve, tail_scores

SEARCH = "identification"
RANK_RULE = "share of mated probes whose mate is among the first {}, ties against it"
OPEN_RULE = "open set, mate first and above the lowest threshold whose FPIR is not above the stated"


def identification_result(
    probes: Embeddings,
    labels: Labels,
    gallery: Iterable[GalleryBlock],
    *,
    name: str,
    ranks: Sequence[int] = (1, 5, 10),
    fpirs: Sequence[float] = (0.1, 0.01),
    resamples: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> ProtocolResult:
    """Ranks of the mated probes, and TPIR at each of `fpirs` where some probes have no mate.

    Args:
        gallery: blocks of (embeddings, labels); labels None are distractors.
        others: as in `search`.
    """
    found = search(probes, labels, gallery, ranks=ranks, device=device, progress=progress)
    people = np.unique(labels, return_inverse=True)[1].reshape(-1)
    of = f"{len(probes)} probes, {found.num_gallery} in the gallery"
    scores, notes = rank_scores(found, people, ranks, of, resamples=resamples, seed=seed)
    tail = open_set_tail(found, people)
    if tail.num_impostors:
        more, said = tail_scores(
            tail,
            fpirs,
            names=lambda fpir: f"tpir@fpir={fpir:g}",
            rate="FPIR",
            protocol=f"{OPEN_RULE}; {tail.num_impostors} unmated probes; {of}",
            resamples=resamples,
            seed=seed,
        )
        scores, notes = scores + more, notes + said
    elif fpirs:
        notes.append("no TPIR at FPIR: every probe has a mate in the gallery")
    curves = [tail_curve(tail)] if tail.num_impostors and len(tail.genuine) else []
    return ProtocolResult(name, f"{SEARCH}; {of}", scores, notes, curves)


def rank_scores(
    found: Searched,
    people: IntArray,
    ranks: Sequence[int],
    of: str,
    *,
    resamples: int,
    seed: int = 0,
    suffix: str = "",
) -> tuple[list[Score], list[str]]:
    """rank-k of the mated probes for each of `ranks`, with intervals."""
    mated = found.is_mated
    if not mated.any():
        return [], ["no rank: no probe has a mate in the gallery"]
    hits = np.stack([found.found(rank)[mated] for rank in ranks])
    return share_scores(
        [f"rank-{rank}{suffix}" for rank in ranks],
        hits,
        people[mated],
        [f"{RANK_RULE.format(rank)}; {of}" for rank in ranks],
        resamples=resamples,
        seed=seed,
    ), []


def share_scores(
    names: Sequence[str],
    hits: BoolArray,
    people: IntArray,
    protocols: Sequence[str],
    *,
    resamples: int,
    seed: int = 0,
) -> list[Score]:
    """The share of each row of `hits` [K, N] under its name, with its interval over people."""
    limits = share_intervals(hits, people, resamples=resamples, seed=seed)
    how = f"; 95 % interval by bootstrap over people ({resamples} resamples)" if resamples else ""
    return [
        Score(name, float(row.mean()), low, high, protocol + how)
        for name, row, (low, high), protocol in zip(names, hits, limits, protocols, strict=True)
    ]


def open_set_tail(found: Searched, people: IntArray) -> Tail:
    """Mated probes as genuine trials, each unmated probe's highest score as an impostor trial.

    Args:
        people: [P] numbers from 0.
    """
    mated = found.is_mated
    accepted = np.where(found.found(1), found.mate, -np.inf)[mated]
    false = found.others[~mated, 0]
    order, others = np.argsort(-accepted, kind="stable"), np.argsort(-false, kind="stable")
    unmated = people[~mated]
    return Tail(
        genuine=accepted[order],
        genuine_people=people[mated][order].astype(np.int32),
        impostors=false[others],
        num_impostors=len(false),
        left=unmated[others].astype(np.int32),
        right=None,
        num_people=int(people.max()) + 1,
        impostor_weight=lambda times: float(times[unmated].sum()),
    )


def megaface_result(
    probes: Embeddings,
    labels: Labels,
    distractors: Sequence[Embeddings],
    *,
    name: str,
    ranks: Sequence[int] = (1, 10),
    fars: Sequence[float] = (1e-5, 1e-6),
    resamples: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> ProtocolResult:
    """rank-k and TAR at FAR of the pairs of one person among `probes` [P, D], with `distractors`.

    Args:
        distractors: arrays [n, D] of people who are none of the probes', mapped files perhaps.
        others: as in `search`.

    Raises:
        DataError: no person has two probes, or more scores would have to be kept than there is room
            for; and as `search` does.
    """
    num_distractors = sum(map(len, distractors))
    trials = len(probes) * num_distractors
    if len(labels):
        check_megaface(labels, num_distractors, fars, name)
    people = np.unique(labels, return_inverse=True)[1].reshape(-1)
    top = TopScores(longest(fars, trials) if trials else 0, device=device)
    found = search(
        probes,
        labels,
        ((part, None) for part in distractors),
        ranks=ranks,
        device=device,
        look=top.add,
        progress=lambda done, _: progress(done, num_distractors),
    )
    probe, score = _genuine_pairs(unit_rows(probes, "probes"), people)
    of = f"{len(probes)} probes of {people.max() + 1} people, {num_distractors} distractors"
    scores = share_scores(
        [f"rank-{rank}" for rank in ranks],
        np.stack([score > found.others[probe, rank - 1] for rank in ranks]),
        people[probe],
        [f"share of ordered pairs of a person among the first {rank}; {of}" for rank in ranks],
        resamples=resamples,
        seed=seed,
    )
    tail = _megaface_tail(top, probe, score, people, num_distractors)
    rule = "genuine pairs of probes against all pairs of a probe and a distractor"
    more, notes = tail_scores(tail, fars, protocol=f"{rule}; {of}", resamples=resamples, seed=seed)
    return ProtocolResult(name, f"MegaFace; {of}", scores + more, notes, [tail_curve(tail)])


def check_megaface(labels: Labels, num_distractors: int, fars: Sequence[float], name: str) -> None:
    """DataError if probes of these people cannot be judged by `megaface_result`."""
    counts = np.unique(labels, return_counts=True)[1]
    if counts.max() < 2:
        raise DataError(f"{name}: no person has two probes; expected several images of each")
    num_genuine = 2 * count_pairs(counts)[0]  # in both orders
    check_kept(fars, num_genuine, len(labels) * num_distractors, name)


def _genuine_pairs(
    rows: npt.NDArray[np.floating], people: IntArray
) -> tuple[IntArray, npt.NDArray[np.floating]]:
    """Probe and score of each ordered pair of different images of one person."""
    probes, scores = [np.zeros(0, np.int64)], [np.zeros(0, rows.dtype)]
    order = np.argsort(people, kind="stable")
    for mine in np.split(order, np.cumsum(np.bincount(people))[:-1]):
        products = rows[mine] @ rows[mine].T
        different = ~np.eye(len(mine), dtype=bool)
        probes.append(np.broadcast_to(mine[:, None], products.shape)[different])
        scores.append(products[different])
    return np.concatenate(probes), np.concatenate(scores)


def _megaface_tail(
    top: TopScores,
    probe: IntArray,
    score: npt.NDArray[np.floating],
    people: IntArray,
    num_distractors: int,
) -> Tail:
    """Both orders of a genuine pair have one score, so its share is that of unordered pairs."""
    impostors, rows, _ = top.falling()
    order = np.argsort(-score, kind="stable")
    images = np.bincount(people)
    return Tail(
        genuine=score[order],
        genuine_people=people[probe[order]].astype(np.int32),
        impostors=impostors,
        num_impostors=len(people) * num_distractors,
        left=people[rows].astype(np.int32),
        right=None,
        num_people=len(images),
        impostor_weight=lambda times: float(times @ images) * num_distractors,
    )

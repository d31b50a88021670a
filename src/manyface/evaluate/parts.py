"""Accuracy by part of the pairs: by subgroup of people, by quality of the images.

All parts are judged at one threshold, as a system in use would judge them: what differs between
parts is who is refused and who is taken for another, which thresholds of their own would hide.

    accuracy [part]   share of the part's pairs decided rightly
    tar [part]        share of its same pairs accepted
    far [part]        share of its different pairs accepted

Quality is the length of the embedding before it is scaled: nets give blurred, turned or hidden
faces short ones (Meng et al. 2021, MagFace; Kim et al. 2022, AdaFace). A pair is as good as its
worse image. It is this net's own opinion, and says nothing where a net was trained to give all
images one length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, NonFiniteError
from manyface.evaluate.bootstrap import Resampler, Unit, bootstrap_intervals, wilson_interval
from manyface.evaluate.metrics import BoolArray, FloatArray, IntArray
from manyface.evaluate.result import ProtocolResult, Score


@dataclass(frozen=True)
class DecidedPairs:
    """P pairs, each with what was decided and what is true.

    Attributes:
        similarity, same: [P]; a pair is accepted at or above the threshold.
        threshold: one for all, or [P] one for each pair (of its fold).
        left, right: [P] people.
        unit: what the bootstrap draws; "pairs" where `left` and `right` name nobody.

    Raises:
        DataError: lengths differ.
        NonFiniteError: a similarity is not finite.
    """

    similarity: npt.NDArray[np.floating]
    same: BoolArray
    threshold: float | FloatArray
    left: IntArray
    right: IntArray
    unit: Unit = "identities"

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (self.similarity, self.same, self.left, self.right)}
        if len(lengths) > 1 or np.shape(self.threshold) not in ((), (len(self),)):
            raise DataError(f"expected one value for each pair, got lengths {sorted(lengths)}")
        if not np.isfinite(self.similarity).all():
            bad = _first(~np.isfinite(self.similarity))
            raise NonFiniteError(f"the similarity of pair {bad} is not finite")

    def __len__(self) -> int:
        return len(self.same)

    @property
    def accepted(self) -> BoolArray:
        """[P], whether a pair was taken to be one person."""
        return np.asarray(self.similarity >= self.threshold)


def by_parts(
    pairs: DecidedPairs,
    part: IntArray,
    names: Sequence[str],
    *,
    name: str,
    protocol: str,
    resamples: int = 1000,
    seed: int = 0,
) -> ProtocolResult:
    """Accuracy, TAR and FAR of each part of `pairs`.

    Args:
        part: int [P], a place in `names`, or -1: in no part.
        protocol: where the threshold comes from, and what the parts are.

    Raises:
        DataError: lengths differ, or a part has no name.
    """
    if len(part) != len(pairs):
        raise DataError(f"parts need one value for each of {len(pairs)} pairs, got {len(part)}")
    if len(part) and not -1 <= part.min() <= part.max() < len(names):
        raise DataError(f"parts are -1 to {len(names) - 1}, got {part.min()} to {part.max()}")
    accepted = pairs.accepted
    scores: list[Score] = []
    notes: list[str] = []
    for number, each in enumerate(names):
        mine = part == number
        drawn = _resampler(pairs, mine, max(resamples, 1), seed)
        scores += _of_part(each, accepted[mine], drawn, protocol, resamples)
        num_same = int(np.count_nonzero(drawn.same))
        if not 0 < num_same < len(drawn.same):
            kinds = f"{num_same} same and {len(drawn.same) - num_same} different"
            notes.append(f"{each} has {kinds} pairs: what needs the others is not given")
    return ProtocolResult(name, protocol, scores, notes)


def by_group(
    pairs: DecidedPairs,
    groups: tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]],
    *,
    name: str,
    resamples: int = 1000,
    seed: int = 0,
) -> ProtocolResult:
    """`by_parts` of pairs within each subgroup; pairs across subgroups are in none.

    Args:
        groups: [P] of the left and of the right images; "" is in none.
    """
    one, other = groups
    names = [str(each) for each in np.unique(np.concatenate([one, other])) if each]
    within = np.where(one == other, one, "")
    part = np.full(len(within), -1, np.int64)
    for number, each in enumerate(names):
        part[within == each] = number
    protocol = "pairs within each subgroup, at one threshold for all"
    found = by_parts(
        pairs, part, names, name=name, protocol=protocol, resamples=resamples, seed=seed
    )
    across = int(np.count_nonzero(part < 0))
    return found if not across else _with_note(found, f"{across} pairs are within no subgroup")


def by_quality(
    pairs: DecidedPairs,
    norms: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]],
    *,
    name: str,
    parts: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> ProtocolResult:
    """`by_parts` of equally many pairs each, from the worst to the best.

    Args:
        norms: [P] lengths of the embeddings of the left and of the right images, before scaling.
        parts: 10 are deciles of the smaller length of the pair. Pairs of equal length are not
            torn apart, so parts can differ in size, and be fewer.

    Raises:
        DataError: lengths differ or are negative.
        NonFiniteError: a length is not finite.
    """
    worse = _worse_length(norms, len(pairs))
    if parts < 1:
        raise DataError(f"pairs are cut into one part or more, got {parts}")
    cuts = np.unique(np.quantile(worse, np.arange(1, parts) / parts)) if len(worse) else worse
    _, part = np.unique(np.searchsorted(cuts, worse, side="right"), return_inverse=True)
    part = part.reshape(-1)
    names = [
        f"norm {worse[part == k].min():.4g} to {worse[part == k].max():.4g}"
        for k in range(int(part.max(initial=-1)) + 1)
    ]
    protocol = f"{len(names)} parts by the smaller embedding length of a pair, one threshold"
    found = by_parts(
        pairs, part, names, name=name, protocol=protocol, resamples=resamples, seed=seed
    )
    if len(names) == parts:
        return found
    return _with_note(
        found, f"lengths differ so little that there are {len(names)} parts of {parts}"
    )


def _worse_length(
    norms: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]], count: int
) -> npt.NDArray[np.floating]:
    """The smaller length of each of `count` pairs, checked."""
    if not len(norms[0]) == len(norms[1]) == count:
        raise DataError(f"quality needs two lengths for each of {count} pairs")
    worse: npt.NDArray[np.floating] = np.minimum(norms[0], norms[1])
    if not np.isfinite(worse).all():
        bad = _first(~np.isfinite(worse))
        raise NonFiniteError(f"the embedding length of pair {bad} is not finite")
    if (worse < 0).any():
        raise DataError(f"the embedding length of pair {_first(worse < 0)} is negative")
    return worse


def _resampler(pairs: DecidedPairs, mine: BoolArray, resamples: int, seed: int) -> Resampler:
    """Of the pairs of one part."""
    same, left, right = pairs.same[mine], pairs.left[mine], pairs.right[mine]
    return Resampler(same, left, right, pairs.unit, resamples, seed)


def _of_part(
    part: str, accepted: BoolArray, drawn: Resampler, protocol: str, resamples: int
) -> list[Score]:
    """Scores of the pairs `accepted` [n] of one part."""
    same = drawn.same
    right = accepted == same
    kinds = {"accuracy": (right, same | True), "tar": (accepted, same), "far": (accepted, ~same)}
    shown = {name: (hit, among) for name, (hit, among) in kinds.items() if among.any()}
    if not shown:
        return []

    def statistic(weights: FloatArray) -> FloatArray:
        return np.array(
            [(weights * among) @ hit / (weights @ among) for hit, among in shown.values()]
        )

    values = statistic(np.ones(len(same)))
    both = same.any() and not same.all()
    low, high = bootstrap_intervals(drawn, statistic) if resamples and both else (values, values)
    scores = []
    for k, (name, (_, among)) in enumerate(shown.items()):
        count, value = int(np.count_nonzero(among)), float(values[k])
        ends: tuple[float | None, float | None] = (float(low[k]), float(high[k]))
        if not resamples:
            ends = None, None
        elif low[k] == high[k]:  # no error, or pairs of one kind: see wilson_interval
            ends = wilson_interval(value, count)
        scores.append(Score(f"{name} [{part}]", value, *ends, f"{protocol}; {count} pairs"))
    return scores


def _with_note(found: ProtocolResult, note: str) -> ProtocolResult:
    return ProtocolResult(found.name, found.protocol, found.scores, [*found.notes, note])


def _first(where: BoolArray) -> int:
    return int(np.flatnonzero(where)[0])

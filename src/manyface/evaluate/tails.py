"""TAR at a low FAR from two lists: all genuine scores, and only the highest impostor scores.

Of billions of impostor pairs, TAR at FAR f needs the K + 1 most similar, K = floor(f x pairs): the
lowest threshold whose FAR is not above f accepts just what scores above the (K + 1)-th, so

    TAR = share of genuine scores > the (K + 1)-th highest impostor score

which is what `metrics.tar_at_far` computes from a full list, ties included.

Intervals are by the bootstrap over people (`bootstrap.py`): a genuine pair counts as often as its
person is drawn, an impostor pair as often as the product of its two; the threshold is found anew.
A resample in which the listed impostors are drawn so seldom that the FAR lies below the list takes
the lowest score listed, which errs towards a low TAR; lists are twice as long as the FAR needs, and
a note says how many resamples it happened to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.evaluate.bootstrap import times_drawn, wilson_interval
from manyface.evaluate.metrics import allowed_impostors
from manyface.evaluate.result import Curve, FloatArray, Score

Scores = npt.NDArray[np.floating]
People = npt.NDArray[np.int32]

_LEAST_LISTED = 8192
_CURVE_POINTS = 200


@dataclass(frozen=True)
class Tail:
    """Attributes:
    genuine: [G] falling; -inf for one that no threshold accepts.
    genuine_people: int32 [G], whose.
    impostors: [M] the highest of `num_impostors`, falling.
    left, right: int32 [M], people of the impostor pairs; `right` is None where each trial has one
        person who is drawn (a probe against a gallery that stays).
    num_people: people are numbers below it.
    impostor_weight: [num_people] how often each is drawn -> how many impostor pairs that makes.
    """

    genuine: Scores
    genuine_people: People
    impostors: Scores
    num_impostors: int
    left: People
    right: People | None
    num_people: int
    impostor_weight: Callable[[FloatArray], float]


def longest(fars: Sequence[float], num_impostors: int, *, spare: int = 2) -> int:
    """How many of the impostors `fars` need to have listed: `spare` times the least, for resamples
    that reach farther, and some thousands, if there are so many."""
    most = max((allowed_impostors(far, num_impostors) for far in fars), default=0)
    return min(num_impostors, max(spare * (most + 1), _LEAST_LISTED))


def tail_threshold(tail: Tail, far: float) -> float:
    """What a score must exceed at FAR `far`; -inf where everything may be accepted.

    Raises:
        DataError: more impostors are needed than are listed.
    """
    allowed = allowed_impostors(far, tail.num_impostors)
    if allowed >= tail.num_impostors:
        return -np.inf
    if allowed >= len(tail.impostors):
        raise DataError(
            f"FAR {far:g} of {tail.num_impostors} impostor pairs needs the {allowed + 1} most "
            f"similar ones, {len(tail.impostors)} were kept"
        )
    return float(tail.impostors[allowed])


def tail_tar(tail: Tail, far: float) -> float:
    """Share of genuine scores that the lowest threshold with a FAR not above `far` accepts."""
    return _num_above(tail.genuine, tail_threshold(tail, far)) / max(len(tail.genuine), 1)


def tail_curve(tail: Tail, name: str = "") -> Curve:
    """The ROC as far as the listed impostors go, at FARs evenly spread on a logarithmic axis."""
    if not len(tail.impostors) or not len(tail.genuine):
        return Curve(name, np.zeros(0), np.zeros(0))
    places = np.unique(np.geomspace(1, len(tail.impostors), _CURVE_POINTS).astype(np.int64)) - 1
    limits = tail.impostors[places]
    far = np.array([_num_above(tail.impostors, limit) for limit in limits]) / tail.num_impostors
    tar = np.array([_num_above(tail.genuine, limit) for limit in limits]) / len(tail.genuine)
    return Curve(name, far, tar)


def tail_scores(
    tail: Tail,
    fars: Sequence[float],
    *,
    names: Callable[[float], str] = lambda far: f"tar@far={far:g}",
    protocol: str,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[list[Score], list[str]]:
    """TAR at each of `fars` with its interval, and notes of those that cannot be given."""
    if not len(tail.genuine) or not tail.num_impostors:
        kinds = f"{len(tail.genuine)} genuine and {tail.num_impostors} impostor trials"
        return [], [f"no TAR: it needs trials of both kinds, there are {kinds}"]
    notes = [
        f"{names(far)} is not given: {tail.num_impostors} impostor trials can show no FAR below "
        f"{1 / tail.num_impostors:.2g}, and nothing is extrapolated"
        for far in fars
        if not allowed_impostors(far, tail.num_impostors)
    ]
    shown = [far for far in fars if allowed_impostors(far, tail.num_impostors)]
    values = [tail_tar(tail, far) for far in shown]
    limits, cut = tail_intervals(tail, shown, resamples=resamples, seed=seed)
    how = f"; 95 % interval by bootstrap over people ({resamples} resamples)" if resamples else ""
    scores = [
        Score(names(far), value, low, high, protocol + how)
        for far, value, (low, high) in zip(shown, values, limits, strict=True)
    ]
    if cut:
        notes.append(f"{cut} of {resamples} resamples reached below the impostors that were kept")
    return scores, notes


def tail_intervals(
    tail: Tail, fars: Sequence[float], *, resamples: int, seed: int = 0
) -> tuple[list[tuple[float | None, float | None]], int]:
    """95 % percentile interval of the TAR at each FAR; how many resamples fell below the list."""
    if not resamples or not fars:
        return [(None, None)] * len(fars), 0
    generator = numpy_generator(seed, "bootstrap", "tail")
    rows, cut = [], 0
    for _ in range(resamples):
        times = times_drawn(generator, tail.num_people)
        if times[tail.genuine_people].any() and tail.impostor_weight(times) > 0:
            found, reached_below = _resampled(tail, fars, times)
            rows.append(found)
            cut += reached_below
    if not rows:
        return [(None, None)] * len(fars), 0
    low, high = np.quantile(np.stack(rows), [0.025, 0.975], axis=0)
    return [_not_a_point(tail, far, *ends) for far, *ends in zip(fars, low, high, strict=True)], cut


def _resampled(tail: Tail, fars: Sequence[float], times: FloatArray) -> tuple[FloatArray, bool]:
    """TARs where person i is there times[i] times; whether a FAR lay below the list."""
    weight = times[tail.left] if tail.right is None else times[tail.left] * times[tail.right]
    accepted = np.cumsum(weight)  # [M] impostors down to each of the list
    total = tail.impostor_weight(times)
    genuine = np.append(0.0, np.cumsum(times[tail.genuine_people]))  # [G + 1]
    tars, reached_below = [], False
    for far in fars:
        allowed = far * total + 1e-9
        first = int(np.searchsorted(accepted, allowed, side="right"))  # the first too many
        limit = -np.inf
        if first < len(accepted):
            limit = float(tail.impostors[first])
        elif len(accepted) < tail.num_impostors:
            limit, reached_below = float(tail.impostors[-1]), True
        tars.append(genuine[_num_above(tail.genuine, limit)] / genuine[-1])
    return np.array(tars), reached_below


def _not_a_point(tail: Tail, far: float, low: float, high: float) -> tuple[float, float]:
    if low < high:
        return float(low), float(high)
    return wilson_interval(tail_tar(tail, far), len(tail.genuine))  # no error: see wilson_interval


def _num_above(falling: Scores, limit: float) -> int:
    """How many of `falling` exceed `limit`."""
    return len(falling) - int(np.searchsorted(falling[::-1], limit, side="right"))

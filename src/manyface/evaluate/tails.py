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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.evaluate.bootstrap import times_drawn, wilson_interval
from manyface.evaluate.metrics import IntArray, allowed_impostors
from manyface.evaluate.result import Curve, FloatArray, Score

Scores = npt.NDArray[np.floating]
People = npt.NDArray[np.int32]

# Scores that may be kept: genuine ones, 24 bytes each while they are sorted, and the highest
# impostor ones, 24 bytes each while they are looked for. 6.4 and 1.6 GB.
MAX_GENUINE, MAX_IMPOSTORS = 1 << 28, 1 << 26

_LEAST_LISTED = 8192
_CURVE_POINTS = 200
_PAIRS_AT_ONCE = 1 << 22
_TIMES_AT_ONCE = 1 << 22  # numbers of draws of people that are in memory


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


def check_kept(
    fars: Sequence[float],
    num_genuine: int,
    num_impostors: int,
    name: str,
    *,
    max_genuine: int = MAX_GENUINE,
    max_impostors: int = MAX_IMPOSTORS,
) -> None:
    """DataError if scores of so many pairs of the set `name` are too many to be kept."""
    if num_genuine > max_genuine:
        raise DataError(
            f"{name} has {num_genuine} genuine pairs, whose scores are all kept; expected "
            f"{max_genuine} at most: take fewer images of people who have thousands (n images are "
            "n (n - 1) / 2 pairs)"
        )
    if (capacity := longest(fars, num_impostors)) > max_impostors:
        raise DataError(
            f"{name}: FAR {max(fars):g} of {num_impostors} impostor pairs needs the {capacity} "
            f"most similar ones; expected {max_impostors} at most: ask for FARs up to "
            f"{10.0 ** np.floor(np.log10(largest_far(num_impostors, max_impostors))):g}"
        )


def largest_far(num_impostors: int, max_impostors: int = MAX_IMPOSTORS) -> float:
    """For which so many impostors, and not more, have to be kept."""
    return 1.0 if num_impostors <= max_impostors else (max_impostors // 2 - 1) / num_impostors


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
    above = _num_above(tail.genuine, np.array([tail_threshold(tail, far)]))[0]
    return int(above) / max(len(tail.genuine), 1)


def tail_curve(tail: Tail, name: str = "") -> Curve:
    """The ROC as far as the listed impostors go, at FARs evenly spread on a logarithmic axis."""
    if not len(tail.impostors) or not len(tail.genuine):
        return Curve(name, np.zeros(0), np.zeros(0))
    places = np.unique(np.geomspace(1, len(tail.impostors), _CURVE_POINTS).astype(np.int64)) - 1
    limits = tail.impostors[places]
    far = _num_above(tail.impostors, limits) / tail.num_impostors
    tar = _num_above(tail.genuine, limits) / len(tail.genuine)
    return Curve(name, far, tar)


def tail_scores(
    tail: Tail,
    fars: Sequence[float],
    *,
    names: Callable[[float], str] = lambda far: f"tar@far={far:g}",
    rate: str = "FAR",
    protocol: str,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[list[Score], list[str]]:
    """TAR at each of `fars` with its interval, and notes of those that cannot be given."""
    if not len(tail.genuine) or not tail.num_impostors:
        kinds = f"{len(tail.genuine)} genuine and {tail.num_impostors} impostor trials"
        return [], [f"no TAR: it needs trials of both kinds, there are {kinds}"]
    notes = [
        f"{names(far)} is not given: {tail.num_impostors} impostor trials can show no {rate} below "
        f"{1 / tail.num_impostors:.3g}, and nothing is extrapolated"
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
    of_person = _of_people(tail.genuine_people, tail.num_people)
    rows, cut = [], 0
    for drawn in _draws(tail.num_people, resamples, seed):
        some = [times for times in drawn if times @ of_person and tail.impostor_weight(times) > 0]
        found = [_resampled_limits(tail, fars, times) for times in some]
        cut += sum(reached_below for _, reached_below in found)
        if some:
            times, limits = np.stack(some), np.stack([each for each, _ in found])
            rows.append(_genuine_above(tail, times, limits) / (times @ of_person)[:, None])
    if not rows:
        return [(None, None)] * len(fars), 0
    low, high = np.quantile(np.concatenate(rows), [0.025, 0.975], axis=0)
    return [_not_a_point(tail, far, *ends) for far, *ends in zip(fars, low, high, strict=True)], cut


def _draws(num_people: int, resamples: int, seed: int) -> Iterator[list[FloatArray]]:
    """How often each person is drawn, [num_people] for each resample, some at a time."""
    generator = numpy_generator(seed, "bootstrap", "tail")
    at_once = max(1, _TIMES_AT_ONCE // max(num_people, 1))
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        yield [times_drawn(generator, num_people) for _ in range(count)]


def _resampled_limits(
    tail: Tail, fars: Sequence[float], times: FloatArray
) -> tuple[FloatArray, bool]:
    """What a score must exceed at each FAR where person i is there times[i] times, [F]; whether
    one lies below the list."""
    weight = times[tail.left] if tail.right is None else times[tail.left] * times[tail.right]
    accepted = np.cumsum(weight)  # [M] impostors down to each of the list
    total = tail.impostor_weight(times)
    limits, reached_below = np.full(len(fars), -np.inf), False
    for place, far in enumerate(fars):
        first = int(np.searchsorted(accepted, far * total + 1e-9, side="right"))  # one too many
        if first < len(accepted):
            limits[place] = tail.impostors[first]
        elif len(accepted) < tail.num_impostors:
            limits[place], reached_below = tail.impostors[-1], True
    return limits, reached_below


def _genuine_above(tail: Tail, times: FloatArray, limits: FloatArray) -> FloatArray:
    """Genuine scores above limits[r, f] where person i is there times[r, i] times, [R, F].

    The list is walked once, from limit to limit: so many pairs of each person are above.
    """
    ends = _num_above(tail.genuine, limits.ravel())
    found, above, start = np.zeros(limits.size), np.zeros(tail.num_people), 0
    for place in np.argsort(ends, kind="stable").tolist():
        if ends[place] > start:
            above += _of_people(tail.genuine_people[start : ends[place]], tail.num_people)
            start = int(ends[place])
        found[place] = times[place // limits.shape[1]] @ above
    return found.reshape(limits.shape)


def _of_people(people: People, num_people: int) -> IntArray:
    """How many of the pairs are each person's; some at a time, as counting makes them wider."""
    parts = range(0, len(people), _PAIRS_AT_ONCE)
    counts = (np.bincount(people[i : i + _PAIRS_AT_ONCE], minlength=num_people) for i in parts)
    return np.asarray(sum(counts, np.zeros(num_people, np.int64)))


def _not_a_point(tail: Tail, far: float, low: float, high: float) -> tuple[float, float]:
    if low < high:
        return float(low), float(high)
    return wilson_interval(tail_tar(tail, far), len(tail.genuine))  # no error: see wilson_interval


def _num_above(falling: Scores, limits: Scores) -> IntArray:
    """How many of `falling` exceed each of `limits`, which are scores or infinite, int64 [n]."""
    exact = limits.astype(falling.dtype)  # else all of `falling` would be made wider
    return len(falling) - np.searchsorted(falling[::-1], exact, side="right").astype(np.int64)

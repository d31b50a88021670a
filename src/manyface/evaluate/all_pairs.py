"""All against all: TAR at FAR down to 1e-6 and below on millions of images, without a pair list.

Every pair of images is a trial, as in insightface's MFR-ALL: N images give N (N - 1) / 2 pairs, of
which sum n (n - 1) / 2 are genuine. Images are sorted by person, so that genuine pairs lie near the
diagonal of the matrix of scores; its upper half is computed block by block (`blocks.py`). Genuine
scores are all kept, of the impostors only the highest that the FARs ask for (`tails.py`).

    memory   8 N D bytes (the embeddings given and a sorted copy), 24 for each genuine pair and
             for each impostor kept (2 x FAR x pairs of them), and some blocks
    work     N^2 D multiply-adds

By subgroup, as MFR does by region: the images of a subgroup against each other, impostors included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.evaluate.blocks import COLUMNS, ROWS, TopScores, Unit, unit_rows
from manyface.evaluate.metrics import FloatArray, IntArray
from manyface.evaluate.result import Curve, ProtocolResult, Score
from manyface.evaluate.tails import (
    MAX_GENUINE,
    MAX_IMPOSTORS,
    Tail,
    check_kept,
    longest,
    tail_curve,
    tail_scores,
)

PROTOCOL = "all against all, TAR at the lowest threshold whose FAR is not above the stated one"


@dataclass(frozen=True)
class AllPairs:
    """What a scan has found: numbers of people are those of `people`, sorted.

    Attributes:
        tail: the genuine and the highest impostor scores.
        people: the labels that appear, [C].
        closest: int64 [n, 2], images of the impostors in the tail, the most similar first.
    """

    tail: Tail
    people: npt.NDArray[np.generic]
    closest: IntArray


def scan_all_pairs(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.generic],
    *,
    fars: Sequence[float] = (1e-4, 1e-5, 1e-6),
    max_genuine: int = MAX_GENUINE,
    max_impostors: int = MAX_IMPOSTORS,
    device: torch.device | str = "cpu",
    name: str = "embeddings",
    progress: Progress = no_progress,
) -> AllPairs:
    """Score every pair of the images `embeddings` [N, D] of people `labels` [N].

    Args:
        embeddings: of any length but 0.
        fars: for which the impostors have to suffice.
        max_genuine, max_impostors: scores that may be kept.
        device: where products are made; the embeddings must fit there.
        progress: called with pairs done and pairs in all.

    Raises:
        DataError: lengths differ, an embedding has no length, or more scores than these have to
            be kept.
        NonFiniteError: an embedding is not finite.
    """
    if len(embeddings) != len(labels):
        raise DataError(f"{name}: {len(embeddings)} embeddings and {len(labels)} labels")
    people, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    num_genuine, num_impostors = count_pairs(counts)
    capacity = longest(fars, num_impostors) if num_impostors else 0
    check_kept(
        fars,
        num_genuine,
        num_impostors,
        name,
        max_genuine=max_genuine,
        max_impostors=max_impostors,
    )
    order = np.argsort(number.reshape(-1), kind="stable")
    number = number.reshape(-1)[order].astype(np.int32)
    rows = torch.from_numpy(unit_rows(embeddings, name, order=order)).to(device)
    genuine, top = _Genuine(num_genuine), TopScores(capacity, device=rows.device)
    _scan(rows, torch.from_numpy(number).to(device), genuine, top, progress)
    scores, left, right = top.falling()
    tail = Tail(
        *genuine.falling(),
        impostors=scores,
        num_impostors=num_impostors,
        left=number[left],
        right=number[right],
        num_people=len(people),
        impostor_weight=lambda times: _num_impostors_drawn(counts, times),
    )
    return AllPairs(tail, people, np.stack([order[left], order[right]], axis=1))


def count_pairs(counts: IntArray) -> tuple[int, int]:
    """Genuine and impostor pairs of people with so many images each."""
    total = int(counts.sum())
    genuine = int((counts * (counts - 1) // 2).sum())
    return genuine, total * (total - 1) // 2 - genuine


def all_pairs_result(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.generic],
    *,
    groups: npt.NDArray[np.str_] | None = None,
    fars: Sequence[float] = (1e-4, 1e-5, 1e-6),
    name: str,
    resamples: int = 200,
    seed: int = 0,
    max_genuine: int = MAX_GENUINE,
    max_impostors: int = MAX_IMPOSTORS,
    device: torch.device | str = "cpu",
    look: Callable[[AllPairs], None] = lambda found: None,
    progress: Progress = no_progress,
) -> ProtocolResult:
    """TAR at each of `fars` over all pairs, and within each of `groups`, with intervals.

    Args:
        groups: [N] the subgroup of each image; "" is in none. A person has one subgroup.
        resamples: of people, for the intervals; 0 leaves them out.
        look: is shown what was found in the whole set.
        others: as in `scan_all_pairs`.
    """
    parts = _parts(labels, groups)
    scores: list[Score] = []
    notes: list[str] = []
    curves: list[Curve] = []
    total = sum(len(part) ** 2 for part in parts.values()) // 2
    done = 0
    for group, part in parts.items():
        found = scan_all_pairs(
            embeddings if not group else embeddings[part],
            labels[part],
            fars=fars,
            max_genuine=max_genuine,
            max_impostors=max_impostors,
            device=device,
            name=name + (f", {group}" if group else ""),
            progress=_shifted(progress, done, total),
        )
        if not group:
            look(found)
        done += len(part) ** 2 // 2
        _add(found.tail, group, fars, resamples, seed, scores, notes)
        curves.append(tail_curve(found.tail, group))
    return ProtocolResult(name, PROTOCOL, scores, notes, curves)


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _add(
    tail: Tail,
    group: str,
    fars: Sequence[float],
    resamples: int,
    seed: int,
    scores: list[Score],
    notes: list[str],
) -> None:
    suffix = f" [{group}]" if group else ""
    within = f" within {group}" if group else ""
    found, said = tail_scores(
        tail,
        fars,
        names=lambda far: f"tar@far={far:g}{suffix}",
        protocol=f"{PROTOCOL}; {len(tail.genuine)} genuine and {tail.num_impostors} impostor pairs"
        f"{within}, {tail.num_people} people",
        resamples=resamples,
        seed=seed,
    )
    scores += found
    notes += [f"{group}: {note}" if group else note for note in said]


def _parts(
    labels: npt.NDArray[np.generic], groups: npt.NDArray[np.str_] | None
) -> dict[str, IntArray]:
    """Images of the whole set ("") and of each subgroup."""
    parts = {"": np.arange(len(labels))}
    if groups is None:
        return parts
    if len(groups) != len(labels):
        raise DataError(f"{len(groups)} subgroups for {len(labels)} images; expected one for each")
    people, first, number = np.unique(labels, return_index=True, return_inverse=True)
    astray = np.flatnonzero(groups[first][number.reshape(-1)] != groups)
    if len(astray):
        person = people[number.reshape(-1)[astray[0]]]
        found = ", ".join(repr(str(group)) for group in np.unique(groups[labels == person]))
        raise DataError(f"person {person} is in several subgroups ({found}); expected one")
    names = [str(group) for group in np.unique(groups) if group]
    return parts | {group: np.flatnonzero(groups == group) for group in names}


class _Genuine:
    """All genuine scores and whose they are, in 8 bytes each: the bits of a score, so turned that
    they sort as falling scores do, and those of a person below them."""

    def __init__(self, count: int) -> None:
        self._keys = np.empty(count, np.uint64)
        self._held = 0

    def add(self, scores: Tensor, people: Tensor) -> None:
        """float32 [n] and int32 [n]."""
        bits = _turned(scores.cpu().numpy().view(np.uint32))
        end = self._held + len(bits)
        if end > len(self._keys):  # our own mistake: some pair was scored twice
            raise RuntimeError(f"{end} genuine pairs were scored, there are {len(self._keys)}")
        keys = self._keys[self._held : end]
        keys[:] = bits
        keys <<= np.uint64(32)
        keys |= people.cpu().numpy().astype(np.uint64)
        self._held = end

    def falling(self) -> tuple[Unit, npt.NDArray[np.int32]]:
        """Scores and people, highest first."""
        if self._held < len(self._keys):  # our own mistake: some pair was not scored
            raise RuntimeError(f"{self._held} of {len(self._keys)} genuine pairs were scored")
        self._keys.sort()
        people = self._keys.astype(np.uint32).view(np.int32)  # the lower half
        self._keys >>= np.uint64(32)
        return _turned(self._keys.astype(np.uint32)).view(np.float32), people


def _turned(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Bits of a float32, so that they fall as numbers rise; and back."""
    sign = np.uint32(1 << 31)
    return np.where(bits & sign, bits, bits ^ (sign - np.uint32(1)))


def _scan(
    rows: Tensor, number: Tensor, genuine: _Genuine, top: TopScores, progress: Progress
) -> None:
    """Show the upper half of all products to both."""
    total, done = len(rows) * (len(rows) - 1) // 2, 0
    room = torch.empty(ROWS * COLUMNS, device=rows.device)
    for first in range(0, len(rows), ROWS):
        mine, last = rows[first : first + ROWS], min(first + ROWS, len(rows))
        for start in range(first, len(rows), COLUMNS):
            others = rows[start : start + COLUMNS]
            block = room[: len(mine) * len(others)].view(len(mine), len(others))
            torch.mm(mine, others.T, out=block)
            if start == first:
                block.masked_fill_(_not_above_diagonal(block), -torch.inf)
            if number[start] <= number[last - 1]:  # sorted: only then can they share a person
                genuine.add(*_taken_out(block, number[first:last], number[start:]))
            top.add(block, first, start)
            done += len(mine) * len(others)
            progress(min(done, total), total)


def _not_above_diagonal(block: Tensor) -> Tensor:
    row = torch.arange(len(block), device=block.device).unsqueeze(1)
    return torch.arange(block.shape[1], device=block.device) <= row


def _taken_out(block: Tensor, of_rows: Tensor, of_columns: Tensor) -> tuple[Tensor, Tensor]:
    """The genuine scores of `block` and whose they are; they become -inf there."""
    columns = int(torch.searchsorted(of_columns[: block.shape[1]], of_rows[-1], right=True))
    near = block[:, :columns]  # only these can share a person with a row
    is_genuine = (of_rows.unsqueeze(1) == of_columns[:columns]) & (near > -torch.inf)
    places = torch.nonzero(is_genuine)
    scores = near[places[:, 0], places[:, 1]]
    near.masked_fill_(is_genuine, -torch.inf)
    return scores, of_rows[places[:, 0]]


def _num_impostors_drawn(counts: IntArray, times: FloatArray) -> float:
    """Impostor pairs where person i with counts[i] images is there times[i] times: of two people,
    each time of one with each time of the other."""
    images = counts * times
    return float((images.sum() ** 2 - (images**2).sum()) / 2)

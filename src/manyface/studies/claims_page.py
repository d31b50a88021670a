"""claims.md: what the studies have found of each claim, and whether it holds."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from manyface.report.document import write_page
from manyface.studies.claims import (
    NONE,
    NOTHING,
    OF_CAPACITY,
    OF_COST,
    OF_PARTIAL,
    OF_POOLS,
    OURS,
    PFC,
    PFC_1,
    TAIL,
    Claim,
    better,
)
from manyface.studies.cost import Costs
from manyface.studies.cost_page import memory_of, seconds_of
from manyface.studies.differences import over_seeds
from manyface.studies.tables import ONE_SEED, Judged, in_points, line_of, markdown

HEADINGS = ("claim", "of", "published", "ours", "holds?", "what we think")
_HOW_JUDGED = (
    f"Nothing is lost if the 95 % interval begins above -{NOTHING:g} points, and the claim is "
    "wrong if it ends below that; better and worse are told by the interval too. Wrong labels are "
    "withstood better than by full FC if they cost less. Each row is one comparison: about one "
    "verdict in twenty is wrong by chance. What is missing was not finished. Accuracy is at the "
    "best threshold of verification; true accepts at a FAR of 1 % are in the pages of the studies. "
    "Costs are of a step of the head alone (cost.md)."
)
_OF_SMALL = (
    " All heads train with the learning rates that are best of full FC, and with a warm-up that is "
    "too short for it by 3 points (pool): what loses may lose less with its own."
)
_OF_CAPACITY = (
    "of the sizes tried, in 24 GiB; full FC's rows may be bfloat16 too: Partial FC itself saves "
    "no memory over a full FC that keeps no logits"
)
Verdict = tuple[str, str]  # what was found, and whether the claim holds


def write_claims(judged: Sequence[Judged], costs: Costs, folder: Path, *, scale: str) -> Path:
    """claims.md in `folder`, of the studies at a scale."""
    lines = [
        *_lines(OF_PARTIAL, judged, scale),
        *([] if scale == "paper" else _tail_lines(judged)),
        *_lines(OF_POOLS, judged, scale),
        *_cost_lines(costs, scale),
        _capacity(costs, scale),
    ]
    text = f"# Claims\n\n{_HOW_JUDGED}{_OF_SMALL if scale == 'small' else ''}\n\n"
    return write_page(f"{text}{markdown(HEADINGS, lines)}\n", folder / "claims.md")


def _lines(claims: Iterable[Claim], judged: Sequence[Judged], scale: str) -> list[list[str]]:
    """Of the claims that have a place at this scale."""
    return [_line(claim, judged, scale) for claim in claims if claim.place(scale)]


def _line(claim: Claim, judged: Sequence[Judged], scale: str) -> list[str]:
    line, ours, holds = line_of(judged, *(claim.place(scale) or ("", ""))), "", ""
    if line is not None and line.less is not None:
        found, of_noise = line.withstands or line.less, line.withstands is not None
        costs = "wrong labels cost it less than full FC by " if of_noise else ""
        ours = f"{costs}{in_points(found)} points, at {line.mean:.3f}"
        holds = claim.rule(found) + _of_seeds(line.runs)
    think = _thought(claim.think, holds, scale)
    return [claim.says, claim.paper, claim.published, ours, holds, think]


def _thought(think: str, holds: str, scale: str) -> str:
    """Of the results at small, where there is a verdict."""
    return think if holds and scale == "small" else ""


def _of_seeds(seeds: Sequence[object]) -> str:
    return f" ({ONE_SEED})" if len(seeds) == 1 else ""


def _tail_lines(judged: Sequence[Judged]) -> list[list[str]]:
    """Of people with few photos: how often their centers are moved, and new photos of them."""
    moved, gained = _moved(judged), _gained(judged)
    of_whom = "people with one to three photos; the interval is of seeds alone"
    return [
        ["centers of the tail are moved without an own photo less often", PFC, NONE, *moved, ""],
        ["sampling helps people with few photos, on new ones", PFC, NONE, *gained,
         of_whom if any(gained) else ""],
    ]  # fmt: skip


def _moved(judged: Sequence[Judged]) -> Verdict:
    full, sampled = _of_tail(judged, "updates", "passive")
    if not full or not sampled:
        return "", ""
    often = [statistics.fmean(each.values()) for each in (full, sampled)]
    moved = _yes(often[1] < often[0]) + _of_seeds(list(sampled))
    return f"{often[0]:,.0f} and {often[1]:,.0f} steps", moved


def _gained(judged: Sequence[Judged]) -> Verdict:
    full, sampled = _of_tail(judged, "groups", "accuracy")
    by_seed = [100 * (sampled[seed] - full[seed]) for seed in sampled if seed in full]
    if len(by_seed) < 2:
        return "", ""  # an interval of seeds alone
    found = over_seeds(by_seed)
    return f"{in_points(found)} points", better(found)


def _of_tail(judged: Sequence[Judged], look: str, key: str) -> list[dict[int, float]]:
    """Of the people with the fewest photos, the first group: full FC's at each seed, and those of
    Partial FC."""
    lines = [line_of(judged, TAIL, name) for name in ("full FC", "Partial FC 0.1")]
    runs = [[] if line is None else line.runs for line in lines]
    return [
        {run["seed"]: run["looks"][look][0][key] for run in each if run["looks"].get(look)}
        for each in runs
    ]


def _cost_lines(costs: Costs, scale: str) -> list[list[str]]:
    return [
        [each.says, each.paper, each.published, ran, holds, _thought(each.think, holds, scale)]
        for each in OF_COST
        for ran, holds in [_ratio(costs, each.ours, each.theirs)]
    ]


def _ratio(costs: Costs, ours: str, theirs: str) -> Verdict:
    """Times and memory at the largest number of identities at which both ran."""
    for size in sorted(_sizes(costs), reverse=True):
        first, second = (_seconds_and_memory(costs, name, size) for name in (ours, theirs))
        if first and second:
            times, memory = second[0] / first[0], first[1] / second[1]
            said = f"{times:.1f} times as fast, {memory:.2f} of the memory ({size:,} identities)"
            return said, f"time {_yes(times > 1)}, memory {_yes(memory < 1)}"
    return "", ""


def _sizes(costs: Costs) -> set[int]:
    """Numbers of identities that were asked for."""
    return {int(key.rpartition(" at ")[2]) for key in costs.figures}


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _seconds_and_memory(costs: Costs, name: str, size: int) -> tuple[float, float] | None:
    """None if it did not run."""
    found = costs.of(name, size) or {}
    seconds, memory = seconds_of(found), memory_of(found)
    return None if seconds is None or memory is None else (seconds, memory)


def _capacity(costs: Costs, scale: str) -> list[str]:
    """The most identities of each that ran, of those that were asked for."""
    names = (*OF_CAPACITY, "full FC")
    most = [_most(costs, name) for name in names]
    ran, holds = "", ""
    if all(most):
        ran = "; ".join(f"{name} {size:,}" for name, size in zip(names, most, strict=True))
        is_told = most[-1] < max(_sizes(costs))
        holds = _yes(min(most[:-1]) > most[-1]) if is_told else "cannot be told: full FC ran always"
    says = "with bfloat16 rows or F2C: more identities in the same memory than full FC in float32"
    published = "8 V100 of 32 GB: 29M, full FC 5.5M"
    think = _thought(_OF_CAPACITY, holds, scale)
    return [says, f"{PFC_1}, {OURS}", published, ran, holds, think]


def _most(costs: Costs, name: str) -> int:
    """0 if it never ran."""
    return max((n for n in _sizes(costs) if _seconds_and_memory(costs, name, n)), default=0)

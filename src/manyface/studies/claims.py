"""The papers' headline claims, and ours, each beside what the studies have found.

A claim is about a cell of a table less the table's baseline. It *holds* or not by its rule, where
the difference's 95 % interval allows to tell; what a study has not finished yet is left open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyface.report.document import write_page
from manyface.studies.cost import Costs
from manyface.studies.differences import Difference
from manyface.studies.page import Judged, line_of, markdown

_NO_LOSS = 0.5  # points
HEADINGS = ("claim", "of", "published", "ours", "holds?")
Verdict = tuple[str, str]  # what was found, and whether the claim holds


def no_loss(found: Difference) -> str:
    """Not half a point worse, by the end of the interval that is nearer."""
    if found.low >= -_NO_LOSS:
        return "yes"
    return "no" if found.high < -_NO_LOSS else "cannot be told"


def better(found: Difference) -> str:
    """Above, by the interval."""
    return "yes" if found.low > 0 else "no" if found.high < 0 else "cannot be told"


def worse(found: Difference) -> str:
    """Below, by the interval."""
    return better(Difference(-found.value, -found.high, -found.low))


@dataclass(frozen=True)
class Claim:
    """Of accuracy.

    Attributes:
        says: what is claimed.
        paper: whose.
        published: its own figure.
        table, cell: where it is looked for, by title and name.
        rule: whether the difference from the table's baseline bears it out.
    """

    says: str
    paper: str
    published: str
    table: str
    cell: str
    rule: Callable[[Difference], str]


_PFC, _PFC_1, _F2C = "Partial FC 2022", "Partial FC 2020", "F2C"
CLAIMS = (
    Claim("a tenth of the negatives loses nothing", _PFC, "IJB-C 97.56 against 97.59",
          "Sample rate", "Partial FC 0.1", no_loss),
    Claim("nor do a few hundredths, nearly", _PFC, "97.51 at 0.05",
          "Sample rate", "Partial FC 0.05", no_loss),
    Claim("the same on real photos", _PFC, "IJB-C 97.56 against 97.59",
          "Sample rate, LFW", "Partial FC 0.1", no_loss),
    Claim("a sample that is random throughout is worse", _PFC_1, "no figure at hand",
          "Positive classes forced in, long tail", "0.1 fully random", worse),
    Claim("sampling and the filter withstand conflict", _PFC, "MFR-All 91.68 against 79.93",
          "A third of the people under three labels", "Partial FC 0.1, filtered", better),
    Claim("sampling alone withstands conflict", _PFC, "no figure at hand",
          "A third of the people under three labels", "Partial FC 0.1", better),
    Claim("sampling and the filter withstand flips", _PFC, "MFR-All 80.20 against 43.87",
          "40 % of the photos under a wrong label", "Partial FC 0.1, filtered", better),
    Claim("sampling helps with a long tail", _PFC, "no figure at hand",
          "Images per identity by a power law", "Partial FC 0.1", better),
    Claim("sampling holds for transformers", _PFC, "ViT-T to ViT-L 97.31 to 98.00",
          "ViT", "Partial FC 0.1, ViT", no_loss),
    Claim("a pool of a tenth is comparable to full FC", _F2C, "no figure at hand",
          "Size of the pool", "F2C 10 %", no_loss),
    Claim("a pool of a hundredth is", _F2C, "no figure at hand",
          "Size of the pool", "F2C 1 %", no_loss),
    Claim("the same on real photos", _F2C, "no figure at hand",
          "F2C on LFW", "F2C 10 %", no_loss),
    Claim("both loaders are better than identities alone", _F2C, "no figure at hand",
          "Loaders and gallery net", "dual loaders 1:1", better),
    Claim("the instance loader alone is worse", _F2C, "no figure at hand",
          "Loaders and gallery net", "instance loader only", worse),
)  # fmt: skip


def write_claims(judged: Sequence[Judged], costs: Costs, folder: Path) -> Path:
    """claims.md in `folder`."""
    lines = [_line(claim, judged) for claim in CLAIMS] + _cost_lines(costs)
    text = (
        "# Claims\n\n"
        f"No loss: not {_NO_LOSS:g} points below the table's baseline by the 95 % interval of the "
        "mean over seeds; better and worse: by the interval. What is missing was not finished. All "
        "heads train with the learning rates that are best of full FC: what loses might lose less "
        "with its own (rate.md, pool.md have tables of them).\n\n"
        f"{markdown(HEADINGS, lines)}\n"
    )
    return write_page(text, folder / "claims.md")


def _line(claim: Claim, judged: Sequence[Judged]) -> list[str]:
    line, ours, holds = line_of(judged, claim.table, claim.cell), "", ""
    if line is not None and (found := line.less) is not None:
        ours = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}] points"
        holds = claim.rule(found)
    return [claim.says, claim.paper, claim.published, ours, holds]


# --- cost -----------------------------------------------------------------------------------------

OF_COST = (
    ("a step of Partial FC 0.1 is faster than of full FC", _PFC, "1.4 times (whole training, 1M)",
     "Partial FC 0.1", "full FC"),
    ("a step of F2C 1 % is faster than of full FC", _F2C, "no figure at hand",
     "F2C 1 %", "full FC"),
    ("ours is faster than insightface's PartialFC_V2", "manyface", "",
     "Partial FC 0.1", "PartialFC_V2 (insightface)"),
    ("so is ours with bfloat16 rows", "manyface", "",
     "Partial FC 0.1, bfloat16", "PartialFC_V2 (insightface)"),
    ("ours is faster than the method of 2020", "manyface", "",
     "Partial FC 0.1", "Partial FC of 2020"),
    ("full FC is faster than plain torch", "manyface", "", "full FC", "data-parallel FC (eager)"),
)  # fmt: skip


def _cost_lines(costs: Costs) -> list[list[str]]:
    return [
        [says, whose, published, *_ratio(costs, ours, theirs)]
        for says, whose, published, ours, theirs in OF_COST
    ]


def _ratio(costs: Costs, ours: str, theirs: str) -> Verdict:
    """Times and memory at the largest number of identities at which both ran."""
    sizes = {int(key.rpartition(" at ")[2]) for key in costs.figures}
    for size in sorted(sizes, reverse=True):
        first, second = costs.of(ours, size), costs.of(theirs, size)
        if first and second and "step_seconds" in first and "step_seconds" in second:
            times = second["step_seconds"]["median"] / first["step_seconds"]["median"]
            memory = _bytes(first) / _bytes(second)
            said = f"{times:.1f} times, {memory:.2f} of the memory ({size:,} identities)"
            return said, "yes" if times > 1 else "no"
    return "", ""


def _bytes(found: Mapping[str, Any]) -> float:
    return float(found["resident_bytes"] + found["peak_extra_bytes"])

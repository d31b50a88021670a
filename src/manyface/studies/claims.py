"""The papers' headline claims, and ours, each beside what the studies have found.

A claim is about a cell of a table less the table's baseline. It *holds* or not by its rule, where
the difference's 95 % interval allows to tell; what a study has not finished yet is left open.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from manyface.report.document import write_page
from manyface.studies.cost import Costs
from manyface.studies.cost_page import memory_of, seconds_of
from manyface.studies.differences import Difference
from manyface.studies.tables import Judged, line_of, markdown

_NO_LOSS = 0.5  # points
HEADINGS = ("claim", "of", "published", "ours", "holds?")
Verdict = tuple[str, str]  # what was found, and whether the claim holds


def no_loss(found: Difference) -> str:
    """Whether less than half a point is lost, by the interval."""
    if found.low >= -_NO_LOSS:
        return "yes"
    return "no" if found.high < 0 else f"no loss seen; at most {-found.low:.1f} points"


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
_NONE = "no figure at hand"
_CONFLICT, _FLIP = (
    "A third of the people under three labels", "40 % of the photos under a wrong label",
)  # fmt: skip
CLAIMS = (
    Claim("a tenth of the negatives loses nothing", _PFC_1,
          "Glint360K, R100: IJB-C 97.3, 97.3 of all",
          "Sample rate", "Partial FC 0.1", no_loss),
    Claim("a tenth loses nothing, on LFW's photos", _PFC,
          "WebFace12M, R100: IJB-C 97.56, 97.59 of all",
          "Sample rate, LFW", "Partial FC 0.1", no_loss),
    Claim("three tenths lose nothing", _PFC, "IJB-C 97.64, MFR-All 94.71; 97.59, 94.69 of all",
          "Sample rate", "Partial FC 0.3", no_loss),
    Claim("a twentieth loses hardly anything", _PFC, "IJB-C 97.51, MFR-All 94.05",
          "Sample rate", "Partial FC 0.05", no_loss),
    Claim("positive classes alone lose little", _PFC,
          "WebFace42M, R100: IJB-C 97.51, MFR-All 93.08; at 0.2 up to 97.85, 96.69",
          "Sample rate", "positive classes only", no_loss),
    Claim("a tenth loses nothing of more people", _PFC, _NONE,
          "100,000 identities", "Partial FC 0.1", no_loss),
    Claim("a sample that is random throughout is worse", _PFC_1, _NONE,
          "Positive classes forced in, long tail", "0.1 fully random", worse),
    Claim("sampling and the filter withstand conflict", _PFC,
          "MFR-All 91.68 at 0.3, 79.93 of full FC", _CONFLICT, "Partial FC 0.3, filtered", better),
    Claim("sampling alone withstands conflict", _PFC, _NONE,
          _CONFLICT, "Partial FC 0.1", better),
    Claim("sampling and the filter withstand flips", _PFC,
          "MFR-All 80.20 at 0.1, 43.87 of full FC", _FLIP, "Partial FC 0.1, filtered", better),
    Claim("sampling helps with a long tail", _PFC, _NONE,
          "Images per identity by a power law", "Partial FC 0.1", better),
    Claim("sampling holds for transformers", _PFC, "at 0.3, ViT-T to ViT-L: 97.31 to 98.00",
          "ViT", "Partial FC 0.3, ViT", no_loss),
    Claim("a pool of a tenth is comparable to full FC", _F2C, _NONE,
          "Size of the pool", "F2C 10 %, dual loaders", no_loss),
    Claim("so is one fed by identities alone", "manyface", "",
          "Size of the pool", "F2C 10 %", no_loss),
    Claim("so is a pool of a hundredth", _F2C, _NONE, "Size of the pool", "F2C 1 %", no_loss),
    Claim("a pool of a tenth is comparable, on LFW's photos", _F2C, _NONE,
          "F2C on LFW", "F2C 10 %", no_loss),
    Claim("both loaders are better than identities alone", _F2C, _NONE,
          "Loaders and gallery net", "dual loaders 1:1", better),
    Claim("the instance loader alone is worse", _F2C, _NONE,
          "Loaders and gallery net", "instance loader only", worse),
    Claim("Virtual FC is worse than F2C", _F2C, _NONE,
          "Virtual FC", "Virtual FC, a tenth of anchors", worse),
)  # fmt: skip


def write_claims(judged: Sequence[Judged], costs: Costs, folder: Path) -> Path:
    """claims.md in `folder`."""
    lines = [_line(claim, judged) for claim in CLAIMS] + _cost_lines(costs)
    text = (
        "# Claims\n\n"
        f"Nothing is lost if the 95 % interval ends above -{_NO_LOSS:g} points, something is if it "
        "ends below 0; better and worse are told by the interval too. What is missing was not "
        "finished. All heads train with the learning rates that are best of full FC: what loses "
        "may lose less with its own (tables in the pages of the studies).\n\n"
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
    ("a step of Partial FC 0.1 takes less than one of full FC", _PFC_1,
     "8 V100, whole trainings: 1M 1.4 times, 0.56 of the memory; 4M 2.4 times, 0.36",
     "Partial FC 0.1", "full FC"),
    ("less than one of full FC with a matrix of logits", _PFC, "8 GPUs, 1M: 1.4 times, 0.55 of the "
     "memory; 64 GPUs, 8M: 3.8 times, 0.20",
     "Partial FC 0.1", "data-parallel FC (plain torch)"),
    ("a step of F2C 10 % takes less than one of full FC", _F2C, _NONE, "F2C 10 %", "full FC"),
    ("so does F2C 1 %", _F2C, _NONE, "F2C 1 %", "full FC"),
    ("ours takes less than insightface's PartialFC_V2", "manyface", "",
     "Partial FC 0.1", "PartialFC_V2 (insightface)"),
    ("so does ours with bfloat16 rows", "manyface", "",
     "Partial FC 0.1, bfloat16", "PartialFC_V2 (insightface)"),
    ("ours takes less than the method of 2020", "manyface", "",
     "Partial FC 0.1", "Partial FC of 2020"),
    ("full FC takes less than plain torch", "manyface", "",
     "full FC", "data-parallel FC (plain torch)"),
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
        first, second = (_seconds_and_memory(costs, name, size) for name in (ours, theirs))
        if first and second:
            times, memory = second[0] / first[0], first[1] / second[1]
            said = f"{times:.1f} times as fast, {memory:.2f} of the memory ({size:,} identities)"
            return said, f"time {_yes(times > 1)}, memory {_yes(memory < 1)}"
    return "", ""


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _seconds_and_memory(costs: Costs, name: str, size: int) -> tuple[float, float] | None:
    """None if it did not run."""
    found = costs.of(name, size) or {}
    seconds, memory = seconds_of(found), memory_of(found)
    return None if seconds is None or memory is None else (seconds, memory)

"""The papers' headline claims, and ours, as data: where each is looked for, and what bears it out.

A claim is about a cell of a table minus the table's baseline. It *holds* or not by its rule, where
the difference's 95 % interval allows to tell; `claims_page` writes what the studies have found.
"""

from collections.abc import Callable
from dataclasses import dataclass

from manyface.studies.compared import longer
from manyface.studies.differences import Difference
from manyface.studies.noise import LONG_FLIP

Rule = Callable[[Difference], str]


def loses_less_than(points: float) -> Rule:
    """Whether at most so many points are lost, by the interval: as tests of non-inferiority do."""

    def judged(found: Difference) -> str:
        if found.low >= -points:
            return "yes"
        if found.high < -points:
            return "no"
        if found.high < 0:
            return f"a loss, of {-found.high:.1f} to {-found.low:.1f} points"
        return f"cannot be told: at most {-found.low:.1f} points are lost"

    return judged


def better(found: Difference) -> str:
    """Above, by the interval."""
    return "yes" if found.low > 0 else "no" if found.high < 0 else "cannot be told"


def worse(found: Difference) -> str:
    """Below, by the interval."""
    return better(Difference(-found.value, -found.high, -found.low))


Place = tuple[str, str]  # title of a table, name of a cell


@dataclass(frozen=True)
class Claim:
    """Of accuracy.

    Attributes:
        says: what is claimed.
        paper: whose.
        published: its own figure.
        table, cell: where it is looked for, by title and name.
        rule: whether the difference from the table's baseline bears it out; of wrong labels, the
            difference in what they cost, where that is known.
        think: of the results at the scale small: why it does not hold, what the verdict leaves out.
        at_paper: where it is looked for at the scale paper; it may have no place there.
    """

    says: str
    paper: str
    published: str
    table: str
    cell: str
    rule: Rule
    think: str = ""
    at_paper: Place | None = None

    def place(self, scale: str) -> Place | None:
        """Where it is looked for at this scale."""
        return self.at_paper if scale == "paper" else (self.table, self.cell)


PFC, PFC_1, _F2C, OURS = "Partial FC 2022", "Partial FC 2020", "F2C", "manyface"
NONE = "no figure found"
NOTHING = 0.5  # points that count as none
_CONFLICT, _FLIP, TAIL = (
    "A third of the people under three labels",
    "40 % of the photos under a wrong label",
    "Images per identity by a power law",
)
_FEW = "1,000 centers a step are 16 for each photo of the batch, the papers' about 60"
_CEILING = "at the ceiling of accuracy; true accepts tell more (identities)"
_NO_TIME = "centers of the tail have two updates of their own here, and no time to be harmed"
_WF12M, _MS1MV3 = "Sample rate, WebFace12M", "F2C, ms1mv3"
_SHORT_RUNS = "in 1.3 epochs nothing is learned by heart, in the paper's 20 it is"
OF_PARTIAL = (
    Claim("a tenth of the negatives loses nothing", PFC_1,
          "Glint360K, R100: IJB-C 97.3, IFRT-All 88.23; 97.3, 88.67 of all",
          "Sample rate", "Partial FC 0.1", loses_less_than(NOTHING), _FEW,
          ("Sample rate, Glint360K, as in 2020", "R100, rate 0.1")),
    Claim("a tenth loses nothing in four times the training", OURS, "",
          longer(4), "Partial FC 0.1", loses_less_than(NOTHING)),
    Claim("a tenth loses nothing on photos", PFC,
          "WebFace12M, R100: IJB-C 97.56, MFR-All 94.49; 97.59, 94.69 of all",
          "Sample rate, LFW", "Partial FC 0.1", loses_less_than(NOTHING),
          "LFW; its 1,000 pairs do not tell half a point", (_WF12M, "R100, rate 0.1")),
    Claim("three tenths lose nothing", PFC, "IJB-C 97.64, MFR-All 94.71",
          "Sample rate", "Partial FC 0.3", loses_less_than(NOTHING),
          at_paper=(_WF12M, "R100, rate 0.3")),
    Claim("a twentieth loses less than a point", OURS, "WebFace12M: IJB-C 97.51, MFR-All 94.05",
          "Sample rate", "Partial FC 0.05", loses_less_than(1.0), "8 centers for each photo",
          (_WF12M, "R100, rate 0.05")),
    Claim("positive classes alone are worse than negatives too", PFC,
          "WebFace42M, R100: IJB-C 97.51, MFR-All 93.08; 97.85, 96.69 at 0.2",
          "Sample rate", "positive classes only", worse,
          at_paper=("WebFace42M, R100", "R100, positive classes only")),
    Claim("a tenth loses nothing of ten times the people", PFC, NONE,
          "100,000 identities", "Partial FC 0.1", loses_less_than(NOTHING), _CEILING),
    Claim("a sample that is random throughout is worse", PFC_1, NONE,
          "Positive classes forced in, long tail", "0.1 fully random", worse,
          "with our loss of a photo whose class is not drawn, which the papers do not define"),
    Claim("sampling and the filter withstand conflict", PFC,
          "MFR-All 91.68 at 0.3, 79.93 of full FC", _CONFLICT, "Partial FC 0.3, filtered", better,
          _SHORT_RUNS, ("WebFace12M-Conflict", "R50, rate 0.3, filtered")),
    Claim("a tenth and the filter at 0.7 withstand conflict", OURS, "",
          _CONFLICT, "Partial FC 0.1, at 0.7", better),
    Claim("sampling alone withstands conflict", PFC, NONE, _CONFLICT, "Partial FC 0.1", better,
          _SHORT_RUNS),
    Claim("sampling and the filter withstand flips", PFC,
          "MFR-All 80.20 at 0.1, 43.87 of full FC", _FLIP, "Partial FC 0.1, filtered", better,
          _SHORT_RUNS, at_paper=("WebFace12M, 40 % flipped", "R50, rate 0.1, filtered")),
    Claim("sampling and the filter withstand flips in four times the training", OURS, "",
          LONG_FLIP, "Partial FC 0.1, filtered", better),
    Claim("sampling alone withstands flips in four times the training", OURS, "",
          LONG_FLIP, "Partial FC 0.1", better),
    Claim("sampling helps with a long tail, for new people", PFC, NONE,
          TAIL, "Partial FC 0.1", better,
          _NO_TIME),
    Claim("sampling holds for transformers", PFC,
          "0.3, ViT-T to ViT-L: 97.31 to 98.00; by PLSC, ViT-T: 97.28 at 0.2, 97.24 of all",
          "ViT", "Partial FC 0.3, ViT", loses_less_than(NOTHING),
          "its learning rates were not searched",
          ("ViT with and without sampling, WebFace42M", "VIT-T, rate 0.2")),
)  # fmt: skip
_PAIRS = "photos of the instance loader are mostly outsiders, whose loss is weak"
_SHORT_LEAD = "a lead of short training of 10,000 people; with 1,000 it is behind (identities)"
OF_POOLS = (
    Claim("a pool of a tenth is comparable to full FC, by the authors' code", _F2C, NONE,
          "Size of the pool", "F2C 10 %, as the authors' code", loses_less_than(NOTHING),
          _SHORT_LEAD, (_MS1MV3, "R50, F2C 10 %")),
    Claim("a pool of a tenth, fed by identities alone, is comparable", OURS, "",
          "Size of the pool", "F2C 10 %", loses_less_than(NOTHING), _SHORT_LEAD),
    Claim("a pool of a tenth is comparable in four times the training", OURS, "",
          longer(4), "F2C 10 %", loses_less_than(NOTHING)),
    Claim("a pool of a hundredth is comparable", _F2C, NONE,
          "Size of the pool", "F2C 1 %", loses_less_than(NOTHING), _SHORT_LEAD,
          (_MS1MV3, "R50, F2C 1 %")),
    Claim("a pool of a thousandth is comparable", _F2C, NONE,
          "Size of the pool", "F2C 0.1 %", loses_less_than(NOTHING),
          "10 slots here, fewer than the 32 people of half a batch; of a million it is 1,000",
          (_MS1MV3, "R50, F2C 0.1 %")),
    Claim("a pool of a tenth is comparable on LFW's photos", OURS, "",
          "F2C on LFW", "F2C 10 %", loses_less_than(NOTHING),
          "six people in ten have one photo, whose second view is the same photo"),
    Claim("a pool of a hundredth is comparable on LFW's photos", OURS, "",
          "F2C on LFW", "F2C 1 %", loses_less_than(NOTHING), "as of a tenth"),
    Claim("a pool of a tenth is comparable with a long tail", OURS, "",
          TAIL, "F2C 10 %", loses_less_than(NOTHING),
          "its loader shows people with many photos less than full FC's does"),
    Claim("a pool of a tenth withstands conflict as full FC does", OURS, "",
          _CONFLICT, "F2C 10 %", loses_less_than(NOTHING)),
    Claim("a pool of a tenth withstands flips as full FC does", OURS, "",
          _FLIP, "F2C 10 %", loses_less_than(NOTHING),
          "most of its pairs are of two people, and it hardly leaves its start"),
    Claim("a pool of a tenth is comparable with ten times the people", OURS, "",
          "100,000 identities", "F2C 10 %", loses_less_than(NOTHING), _CEILING),
    Claim("both loaders are better than identities alone, by the authors' code", _F2C, NONE,
          "Loaders, by the authors' code", "as the authors' code (2:1)", better, _PAIRS),
    Claim("both loaders are better with our other defaults", _F2C, NONE,
          "Loaders and gallery net", "dual loaders 1:1", better, _PAIRS),
    Claim("the instance loader alone is worse", OURS, "",
          "Loaders and gallery net", "instance loader only", worse),
    Claim("F2C with a queue in one direction, as DCQ, is worse, as many photos trained", OURS, "",
          "Other ways without class centers", "queue, one direction, as many trained", worse,
          "of equal photos drawn it trains half, and is 5.6 points behind"),
    Claim("F2C with the batch for its pool, as N-pair, is worse", OURS, "",
          "Other ways without class centers", "the batch alone, both directions", worse,
          "no pool shows its worth with 10,000 people"),
    Claim("Virtual FC is worse than F2C", _F2C, NONE,
          "Virtual FC", "Virtual FC, a tenth of anchors", worse,
          "untuned: scale, margin and learning rates are those of full FC"),
)  # fmt: skip
CLAIMS = (*OF_PARTIAL, *OF_POOLS)


# --- cost -----------------------------------------------------------------------------------------

OF_CAPACITY = ("Partial FC 0.1, bfloat16", "F2C 10 %", "F2C 1 %")
_TWICE = "full FC computes numerators twice at a million; it keeps no logits that could be saved"
_NETS = "of the head alone: its nets take a fifth to two fifths more time"


@dataclass(frozen=True)
class CostClaim:
    """A step of `ours` takes less time and memory than one of `theirs`; the rest as of `Claim`."""

    says: str
    paper: str
    published: str
    ours: str
    theirs: str
    think: str = ""


OF_COST = (
    CostClaim(
        "a step of Partial FC 0.1 takes less than one of full FC",
        PFC_1,
        "8 V100, whole trainings: 1M 1.4 times, 0.56 of the memory; 4M 2.4 times, 0.36",
        "Partial FC 0.1",
        "full FC",
        _TWICE,
    ),
    CostClaim(
        "a step of Partial FC 0.1 takes less than one of full FC with a matrix of logits",
        PFC,
        "rate not stated; 8 GPUs, 1M: 1.4 times, 0.55 of the memory; 64 GPUs, 8M: 3.8 times, 0.20",
        "Partial FC 0.1",
        "data-parallel FC (plain torch)",
    ),
    CostClaim(
        "a step of F2C 10 % takes less than one of full FC",
        _F2C,
        NONE,
        "F2C 10 %",
        "full FC",
        _NETS,
    ),
    CostClaim(
        "a step of F2C 1 % takes less than one of full FC", _F2C, NONE, "F2C 1 %", "full FC", _NETS
    ),
    CostClaim(
        "our Partial FC 0.1 takes less than insightface's PartialFC_V2",
        OURS,
        "",
        "Partial FC 0.1",
        "PartialFC_V2 (insightface)",
    ),
    CostClaim(
        "our Partial FC 0.1 with bfloat16 rows takes less than PartialFC_V2",
        OURS,
        "",
        "Partial FC 0.1, bfloat16",
        "PartialFC_V2 (insightface)",
    ),
    CostClaim(
        "our Partial FC 0.1 takes less than the method of 2020",
        OURS,
        "",
        "Partial FC 0.1",
        "Partial FC of 2020",
    ),
    CostClaim(
        "our full FC takes less than plain torch",
        OURS,
        "",
        "full FC",
        "data-parallel FC (plain torch)",
    ),
)

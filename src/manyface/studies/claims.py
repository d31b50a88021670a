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


@dataclass(frozen=True)
class Claim:
    """Of accuracy.

    Attributes:
        says: what is claimed.
        paper: whose.
        published: its own figure.
        table, cell: where it is looked for, by title and name.
        rule: whether the difference from the table's baseline bears it out.
        think: of the results at the scale small: why it does not hold, what the verdict leaves out.
    """

    says: str
    paper: str
    published: str
    table: str
    cell: str
    rule: Rule
    think: str = ""


PFC, PFC_1, _F2C, OURS = "Partial FC 2022", "Partial FC 2020", "F2C", "manyface"
NONE = "no figure found"
NOTHING = 0.5  # points that count as none
_CONFLICT, _FLIP, TAIL = (
    "A third of the people under three labels",
    "40 % of the photos under a wrong label",
    "Images per identity by a power law",
)
_FEW = (
    "1,000 centers a step are 16 for each photo, the papers' 60; after four times the training "
    "half of it is left"
)
_SHORT_RUNS = "In 1.3 epochs nothing is learned by heart, in the paper's 20 it is"
OF_PARTIAL = (
    Claim("a tenth of the negatives loses nothing", PFC_1,
          "Glint360K, R100: IJB-C 97.3 and 97.3 of all, IFRT-All 88.23 and 88.67",
          "Sample rate", "Partial FC 0.1", loses_less_than(NOTHING), _FEW),
    Claim("nor does it when trained four times as long", OURS, "",
          longer(4), "Partial FC 0.1", loses_less_than(NOTHING)),
    Claim("a tenth loses nothing", PFC,
          "WebFace12M, R100: IJB-C 97.56, MFR-All 94.49; 97.59, 94.69 of all",
          "Sample rate, LFW", "Partial FC 0.1", loses_less_than(NOTHING),
          "on LFW's photos, whose 1,000 judged pairs tell no less"),
    Claim("three tenths lose nothing", PFC, "IJB-C 97.64, MFR-All 94.71",
          "Sample rate", "Partial FC 0.3", loses_less_than(NOTHING)),
    Claim("a twentieth loses less than a point", PFC, "IJB-C 97.51, MFR-All 94.05",
          "Sample rate", "Partial FC 0.05", loses_less_than(1.0), "8 centers for each photo"),
    Claim("positive classes alone are worse", PFC,
          "WebFace42M, R100: IJB-C 97.51, MFR-All 93.08; 97.85, 96.69 at 0.2",
          "Sample rate", "positive classes only", worse),
    Claim("a tenth loses nothing of ten times the people", PFC, NONE,
          "100,000 identities", "Partial FC 0.1", loses_less_than(NOTHING)),
    Claim("a sample that is random throughout is worse", PFC_1, NONE,
          "Positive classes forced in, long tail", "0.1 fully random", worse,
          "with our loss of a photo whose class is not drawn, which the papers do not define"),
    Claim("sampling and the filter withstand conflict", PFC,
          "MFR-All 91.68 at 0.3, 79.93 of full FC", _CONFLICT, "Partial FC 0.3, filtered", better,
          f"conflict costs it 1.6 points, full FC 2.3. {_SHORT_RUNS}"),
    Claim("so do a tenth and the filter at 0.7", OURS, "",
          _CONFLICT, "Partial FC 0.1, at 0.7", better, "conflict costs it 1.4 points"),
    Claim("sampling alone withstands conflict", PFC, NONE, _CONFLICT, "Partial FC 0.1", better,
          "conflict costs it 2.2 points, full FC 2.3"),
    Claim("sampling and the filter withstand flips", PFC,
          "MFR-All 80.20 at 0.1, 43.87 of full FC", _FLIP, "Partial FC 0.1, filtered", better),
    Claim("so they do when trained four times as long", OURS, "",
          LONG_FLIP, "Partial FC 0.1, filtered", better),
    Claim("sampling alone withstands flips", OURS, "", LONG_FLIP, "Partial FC 0.1", better),
    Claim("sampling helps with a long tail, for new people", PFC, NONE,
          TAIL, "Partial FC 0.1", better,
          "passive updates are a tenth, and do no harm that would show here"),
    Claim("sampling holds for transformers", PFC, "at 0.3, ViT-T to ViT-L: 97.31 to 98.00",
          "ViT", "Partial FC 0.3, ViT", loses_less_than(NOTHING)),
)  # fmt: skip
_PAIRS = "photos of the instance loader are mostly outsiders, whose loss is weak"
_SHORT_LEAD = "a lead of short training: class centers are under way, a pool has none"
OF_POOLS = (
    Claim("a pool of a tenth is comparable to full FC", _F2C, NONE,
          "Size of the pool", "F2C 10 %, as the authors' code", loses_less_than(NOTHING),
          _SHORT_LEAD),
    Claim("so is one fed by identities alone", OURS, "",
          "Size of the pool", "F2C 10 %", loses_less_than(NOTHING), _SHORT_LEAD),
    Claim("and when trained four times as long", OURS, "",
          longer(4), "F2C 10 %", loses_less_than(NOTHING)),
    Claim("so is a pool of a hundredth", _F2C, NONE,
          "Size of the pool", "F2C 1 %", loses_less_than(NOTHING), _SHORT_LEAD),
    Claim("so is a pool of a thousandth", _F2C, NONE,
          "Size of the pool", "F2C 0.1 %", loses_less_than(NOTHING),
          "10 slots here, fewer than the 32 people of half a batch; thousands of millions"),
    Claim("a pool of a tenth is comparable on LFW's photos", OURS, "",
          "F2C on LFW", "F2C 10 %", loses_less_than(NOTHING),
          "six people in ten have one photo, whose second view is the same photo"),
    Claim("so is a pool of a hundredth on LFW's", OURS, "",
          "F2C on LFW", "F2C 1 %", loses_less_than(NOTHING)),
    Claim("a pool of a tenth is comparable with a long tail", OURS, "",
          TAIL, "F2C 10 %", loses_less_than(NOTHING),
          "its loader shows people with many photos less than full FC's does"),
    Claim("a pool of a tenth is comparable with ten times the people", OURS, "",
          "100,000 identities", "F2C 10 %", loses_less_than(NOTHING)),
    Claim("both loaders are better than identities alone", _F2C, NONE,
          "Loaders, by the authors' code", "as the authors' code (2:1)", better, _PAIRS),
    Claim("so they are with our other defaults", _F2C, NONE,
          "Loaders and gallery net", "dual loaders 1:1", better, _PAIRS),
    Claim("the instance loader alone is worse", _F2C, NONE,
          "Loaders and gallery net", "instance loader only", worse),
    Claim("a queue in one direction (DCQ) is worse, as many photos trained", _F2C, NONE,
          "Other ways without class centers", "queue, one direction, as many trained", worse,
          "of equal photos drawn it trains half, and is 5.6 points behind"),
    Claim("the batch alone (N-pair) is worse", _F2C, NONE,
          "Other ways without class centers", "the batch alone, both directions", worse,
          "no pool shows its worth with 10,000 people"),
    Claim("Virtual FC is worse than F2C", _F2C, NONE,
          "Virtual FC", "Virtual FC, a tenth of anchors", worse),
)  # fmt: skip
CLAIMS = (*OF_PARTIAL, *OF_POOLS)


# --- cost -----------------------------------------------------------------------------------------

OF_CAPACITY = ("Partial FC 0.1, bfloat16", "F2C 10 %", "F2C 1 %")
OF_COST = (
    ("a step of Partial FC 0.1 takes less than one of full FC", PFC_1,
     "8 V100, whole trainings: 1M 1.4 times, 0.56 of the memory; 4M 2.4 times, 0.36",
     "Partial FC 0.1", "full FC"),
    ("less than one of full FC with a matrix of logits", PFC, "8 GPUs, 1M: 1.4 times, 0.55 of the "
     "memory; 64 GPUs, 8M: 3.8 times, 0.20",
     "Partial FC 0.1", "data-parallel FC (plain torch)"),
    ("a step of F2C 10 % takes less than one of full FC", _F2C, NONE, "F2C 10 %", "full FC"),
    ("so does F2C 1 %", _F2C, NONE, "F2C 1 %", "full FC"),
    ("ours takes less than insightface's PartialFC_V2", OURS, "",
     "Partial FC 0.1", "PartialFC_V2 (insightface)"),
    ("so does ours with bfloat16 rows", OURS, "",
     "Partial FC 0.1, bfloat16", "PartialFC_V2 (insightface)"),
    ("ours takes less than the method of 2020", OURS, "",
     "Partial FC 0.1", "Partial FC of 2020"),
    ("full FC takes less than plain torch", OURS, "",
     "full FC", "data-parallel FC (plain torch)"),
)  # fmt: skip

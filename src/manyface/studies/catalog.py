"""The studies, as data: which cells they compare and what they ask.

Cells of equal recipes are one run, whichever studies have them: names do not count.
"""

from collections.abc import Callable, Iterable, Mapping

from manyface.studies.cells import Cell, Changes, Scale, Study, Table
from manyface.studies.compared import DUAL, FULL, LONG_TAIL, partial, pool, with_changes
from manyface.studies.noise import conflict, flip
from manyface.studies.paper import paper_studies
from manyface.studies.pools import pool_study
from manyface.studies.rates import identities, rate


def tail(scale: Scale) -> Study:
    """Few people with many photos, many with few."""
    cells = (FULL, partial(0.1), partial(0.1, "head.sampler=balanced", name="0.1 balanced"),
             pool(scale, 0.1), pool(scale, 0.1, *DUAL, name="F2C 10 %, dual loaders"))  # fmt: skip
    question = (
        "Who pays for a long tail? The Partial FC paper: centers of people with few photos are "
        "moved as negatives nearly all the time, and sampling makes these passive updates rarer. "
        "Accuracy is also that of new photos of the people trained on, by how many photos they had."
    )
    note = (
        "F2C's loader of identities shows all people equally often; full FC, Partial FC and the "
        "loader of instances show them as often as they have photos."
    )
    title = "Images per identity by a power law"
    tables = (Table(title, FULL.name, with_changes(cells, LONG_TAIL), note=note),)
    return Study("tail", "Long tail", question, tables, looks=("groups", "updates"))


MARGINS: Mapping[str, Changes] = {
    "CosFace": (),
    "no margin (NormFace)": ("head.margin=normface",),
    "ArcFace, exact gradient": ("head.margin=arcface", "head.m=0.3"),
    "ArcFace, straight-through": (
        "head.margin=arcface", "head.m=0.3", "head.gradient=straight_through",
    ),
    "combined 1, 0.2, 0.15": (
        "head.margin=combined", "head.m1=1.0", "head.m2=0.2", "head.m3=0.15",
    ),
    "SphereFace": ("head.margin=sphereface", "head.m=1.5"),
    "AdaFace": ("head.margin=adaface", "head.m=0.3"),
    "MagFace": ("head.margin=magface", "head.l_m=0.2", "head.u_m=0.4"),
    "CurricularFace": ("head.margin=arcface", "head.m=0.3", "head.negatives=curricular"),
    "MV-Softmax": ("head.negatives=mv",),
}  # fmt: skip
OF_POOLS = ("CosFace", "no margin (NormFace)", "ArcFace, exact gradient",
            "ArcFace, straight-through", "combined 1, 0.2, 0.15", "SphereFace")  # fmt: skip


def margins(scale: Scale) -> Study:
    """Every margin with every head."""

    def table(head: Cell, names: Iterable[str]) -> Table:
        cells = tuple(Cell(name, (*head.changes, *MARGINS[name]), 1) for name in names)
        return Table(f"Margins, {head.name}", "CosFace", cells, best_again=3)

    question = (
        "Which margin, with which head? One seed each, three of the best, which flatters these: "
        "their first seed chose them. ArcFace exists twice: "
        "with the true derivative, and with the one of insightface's code."
    )
    tables = (
        table(FULL, MARGINS),
        table(partial(0.1), MARGINS),
        table(pool(scale, 0.1), OF_POOLS),
    )
    return Study("margins", "Margins", question, tables)


def backbones(scale: Scale) -> Study:
    """A convolutional net and a transformer."""
    vit = (
        "backbone.name=vit_mini", "backbone.stem_width=", "backbone.widths=", "backbone.depths=",
        "optimizer.name=adamw", "optimizer.learning_rate=0.001", "optimizer.weight_decay=0.05",
    )  # fmt: skip
    heads = (FULL, partial(0.3), partial(0.1))
    tables = tuple(
        Table(net, f"{FULL.name}, {net}", with_changes(heads, *changes, suffix=f", {net}"))
        for net, changes in {"CNN": (), "ViT": vit}.items()
    )
    question = (
        "Does sampling hold for transformers as for convolutional nets? The paper trains ViT-T to "
        "ViT-L with Partial FC at 0.3 (IJB-C at 1e-4 97.31 to 98.00)."
    )
    return Study("backbones", "Backbones", question, tables)


_STUDIES: Mapping[str, Callable[[Scale], Study]] = {
    "rate": rate,
    "identities": identities,
    "pool": pool_study,
    "conflict": conflict,
    "flip": flip,
    "tail": tail,
    "margins": margins,
    "backbones": backbones,
}


def studies_of(scale: Scale) -> dict[str, Study]:
    """Name -> study at this scale."""
    if scale.name == "paper":
        return paper_studies()
    return {name: make(scale) for name, make in _STUDIES.items()}

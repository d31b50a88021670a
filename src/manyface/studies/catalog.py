"""The studies, as data: which cells they compare and what they ask.

Cells of equal recipes are one run, whichever studies have them: names do not count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from manyface.studies.cells import Cell, Changes, Scale, Study, Table
from manyface.studies.paper import paper_studies

FULL = Cell("full FC")
LONG_TAIL = "data.synthetic.long_tail=100"
F2C = ("head.method=f2c",)
DUAL = ("pool.identity_share=0.5",)
FILTERED = ("head.negatives=interclass_filter",)
NO_OUTSIDE = ("pool.identity_share=1.0", "pool.passes=1")  # a queue of features, one direction


def partial(rate: float, *more: str, name: str | None = None) -> Cell:
    """Partial FC at a sample rate."""
    return Cell(name or f"Partial FC {rate:g}", (f"head.sample_rate={rate:g}", *more))


def pool(scale: Scale, ratio: float, *more: str, name: str | None = None) -> Cell:
    """F2C with a pool of this share of the identities; one below a batch's walks label by label."""
    walks = ("pool.rule=sequential",) if ratio * scale.people < scale.batch else ()
    name = name or f"F2C {100 * ratio:g} %"
    return Cell(name, (*F2C, f"pool.ratio={ratio:g}", *walks, *more))


def with_changes(cells: Iterable[Cell], *changes: str, suffix: str = "") -> tuple[Cell, ...]:
    """The same cells under other circumstances."""
    return tuple(Cell(c.name + suffix, (*c.changes, *changes), c.seeds) for c in cells)


_SIXTEEN = (
    "All heads train with the learning rates that are best of full FC. A tenth is 16 classes for "
    "each photo of a batch here, 60 in the paper's runs."
)
_UNDRAWN = (
    "Fully random: a photo whose class was not drawn has the loss ln(1 + sum of the exponentials "
    "of those that were), which the papers do not define."
)
_EASIER = (
    "A softmax over a share r of the classes is easier than over all, by ln(1 / r) / scale of "
    "margin: 0.144 for a tenth and 0.288 for a hundredth at the scale 16 of these runs (0.036 and "
    "0.072 at the papers' 64). Here the samples get that margin back; full FC with more and with "
    "less shows whether margins alone do it."
)
_FASTER = "Full FC at the learning rate of class centers that is its best, samples at twice that."


def rate(scale: Scale) -> Study:
    """Sample rates and samplers."""
    rates = tuple(partial(r) for r in (0.5, 0.3, 0.2, 0.1, 0.05, 0.01))
    positives = partial(0, name="positive classes only")
    tenth = partial(0.1)
    forced = (
        tenth,
        partial(0.1, "head.sampler=random", name="0.1 fully random"),
        partial(0.5, "head.sampler=random", name="0.5 fully random"),
    )
    hard = ("head.sampler=hard", "head.hard_refresh_steps=200")
    which = (
        tenth,
        partial(0.1, "head.sampler=balanced", name="0.1 balanced by images"),
        partial(0.1, *hard, name="0.1, half of it hard negatives"),
    )
    tables = (
        Table("Sample rate", FULL.name, (FULL, *rates, positives), note=_SIXTEEN),
        Table("Positive classes forced in, long tail", tenth.name,
              with_changes(forced, LONG_TAIL), note=_UNDRAWN),
        Table("Which negatives, long tail", tenth.name, with_changes(which, LONG_TAIL)),
        *_on_lfw(scale, "Sample rate, LFW", (FULL, tenth, partial(0.01))),
        _margin_for_the_sample(),
        _own_learning_rates(),
        _learning_rates("class centers", "head", (0.005, 0.01, 0.02), (FULL, *rates, positives)),
    )  # fmt: skip
    question = (
        "How many of the negative class centers does a step need? The papers: a tenth, drawn at "
        "random beside the positive ones, loses nothing (IJB-C at 1e-4 97.56 against 97.59 of all, "
        "WebFace12M), while a sample that is random throughout, positive classes not forced in, is "
        "worse."
    )
    return Study("rate", "Sample rate", question, tables, looks=("cosines",))


def _margin_for_the_sample() -> Table:
    cells = (
        FULL,
        Cell("full FC, margin 0.25", ("head.m=0.25",)),
        Cell("full FC, margin 0.35", ("head.m=0.35",)),
        partial(0.1),
        partial(0.1, "head.m=0.444", name="Partial FC 0.1, margin 0.444"),
        partial(0.01),
        partial(0.01, "head.m=0.588", name="Partial FC 0.01, margin 0.588"),
    )
    return Table("Margin for the sample", FULL.name, cells, note=_EASIER)


def _own_learning_rates() -> Table:
    faster = ("head.learning_rate=0.01",)
    positives = partial(0, name="positive classes only")
    samples = with_changes((partial(0.1), partial(0.01), positives), *faster, suffix=", faster")
    return Table("Class centers twice as fast", FULL.name, (FULL, *samples), note=_FASTER)


def _learning_rates(
    whose: str, section: str, rates: Sequence[float], heads: Sequence[Cell]
) -> Table:
    """Whether a comparison depends on a learning rate."""
    cells = tuple(
        Cell(f"{head.name}, {rate:g}", (*head.changes, f"{section}.learning_rate={rate:g}"), 1)
        for rate in rates
        for head in heads
    )
    columns = tuple(f"{rate:g}" for rate in rates)
    note = "One seed each: accuracy, and in brackets the points less the first of all."
    title = f"Learning rate of the {whose}"
    return Table(title, cells[0].name, cells, note=note, columns=columns)


def _on_lfw(scale: Scale, title: str, cells: tuple[Cell, ...]) -> Iterable[Table]:
    """The same on LFW, where the scale has a recipe of it."""
    if "lfw" in scale.recipes:
        yield Table(title, cells[0].name, cells, recipe="lfw")


def identities(scale: Scale) -> Study:
    """More and more people."""

    def table(people: int, seeds: int) -> Table:
        samples = (partial(r) for r in (0.1, 0.01) if r * people >= scale.batch)  # else positives
        cells = (FULL, *samples, pool(scale, 0.1))
        size = () if people == scale.people else _people(scale, people)
        return Table(
            f"{people:,} identities",
            FULL.name,
            tuple(Cell(c.name, (*c.changes, *size), min(seeds, scale.seeds)) for c in cells),
        )

    question = (
        "Does what holds of few identities hold of many? The papers show the step from 10k to "
        "millions; each table here sees as many photos of each identity, that of the fewest more. "
        "Tables are judged on people of their own, so only differences compare between them."
    )
    tables = tuple(table(people, seeds) for people, seeds in scale.identities.items())
    return Study("identities", "Number of identities", question, tables)


def _people(scale: Scale, people: int) -> Changes:
    """So many people, and as many photos of each seen as at the scale's own number, or more."""
    steps = scale.steps * max(people / scale.people, 0.5)  # fewer people still want their updates
    return (f"data.synthetic.num_identities={people}", f"schedule.steps={round(steps)}")


_OURS = (
    "F2C without more words is ours, fed by identities alone. A pool below a batch's identities "
    "walks label by label: a thousandth is 10 slots here, of millions it is thousands."
)
_NEAR = (
    "A queue of features whose older duplicates are dropped is a pool fed by identities alone: "
    "ours with both nets in both roles, as semi-siamese training has it; DCQ's with one role for "
    "each; N-pair's with the batch as the queue."
)


def pool_study(scale: Scale) -> Study:
    """F2C's pool, its loaders, and what stands near it."""
    tenth = pool(scale, 0.1)
    sizes = tuple(pool(scale, share) for share in (1, 0.3, 0.1, 0.01, 0.001))
    published = (
        pool(scale, 0.1, *DUAL, name="F2C 10 %, dual loaders"),
        pool(scale, 0.1, "pool.preset=official", name="F2C 10 %, as the authors' code"),
    )
    virtual = Cell("Virtual FC, a tenth of anchors", ("head.method=virtual", "pool.ratio=0.1"))
    near = (
        pool(scale, 0.1, *NO_OUTSIDE, name="queue of features, one direction (as DCQ)"),
        Cell(
            "the batch only (as N-pair)",
            (*F2C, *NO_OUTSIDE, f"pool.slots={scale.batch // 2}", "pool.decay=0.0"),
        ),
    )
    parts = (
        tenth,
        pool(scale, 0.1, *DUAL, name="dual loaders 1:1"),
        pool(scale, 0.1, "pool.identity_share=0.6667", name="dual loaders 2:1"),
        pool(scale, 0.1, "pool.identity_share=0.0", name="instance loader only"),
        pool(scale, 0.1, "pool.decay=0.99", name="moving average 0.99"),
        pool(scale, 0.1, "pool.decay=0.999", name="moving average 0.999"),
        pool(scale, 0.1, "pool.preset=official", name="as the authors' code"),
    )
    once = replace(pool(scale, 0.01), seeds=1)
    question = (
        "Can a pool of features stand for the class centers? F2C: at comparable accuracy and less "
        "cost, with the pool a tenth to a thousandth of the identities; both loaders are better "
        "than either."
    )
    tables = (
        Table("Size of the pool", FULL.name, (FULL, *sizes, *published), note=_OURS),
        Table("Loaders and gallery net", tenth.name, parts),
        Table("Other ways without class centers", tenth.name, (tenth, *near), note=_NEAR),
        Table("Virtual FC", tenth.name, (tenth, virtual)),
        *(_more_photos(scale, times, (FULL, partial(0.1), tenth, once)) for times in (2, 4)),
        *_on_lfw(scale, "F2C on LFW", (FULL, tenth, pool(scale, 0.01))),
        _learning_rates("net", "optimizer", (0.05, 0.1, 0.2), (FULL, tenth)),
    )
    return Study("pool", "Dynamic class pool", question, tables)


def _more_photos(scale: Scale, times: int, cells: tuple[Cell, ...]) -> Table:
    """The same trained for longer: class centers may need it, where a pool does not."""
    steps = f"schedule.steps={times * scale.steps}"
    title = f"{times} times the photos"
    return Table(title, cells[0].name, with_changes(cells, steps))


def _under_noise(scale: Scale) -> tuple[Cell, ...]:
    return (
        FULL,
        Cell("full FC, filtered", FILTERED),
        Cell("full FC, 3 sub-centers", ("head.sub_centers=3",)),
        partial(0.1),
        partial(0.1, *FILTERED, name="Partial FC 0.1, filtered"),
        pool(scale, 0.1),
    )


_THRESHOLDS = (
    "The filter drops wrong centers above a cosine of 0.4, as the paper's. Here photos have more "
    "than that of their nearest wrong center on average, so it is tried at 0.7 too."
)


def _filters() -> tuple[Cell, ...]:
    """Another threshold, and the sample of the paper's figure."""
    return (
        partial(0.1, *FILTERED, "head.negatives_threshold=0.7", name="Partial FC 0.1, at 0.7"),
        partial(0.3, *FILTERED, name="Partial FC 0.3, filtered"),
    )


def conflict(scale: Scale) -> Study:
    """People under several labels."""
    cells = (*_under_noise(scale), *_filters())
    split = ("data.noise.split=0.33", "data.noise.parts=3")
    question = (
        "What do heads make of one person under several labels? The Partial FC paper: sampling "
        "makes it rarer that two labels of one person push each other apart (MFR-All 91.68 for a "
        "rate of 0.3 with the filter, 79.93 for full FC on WebFace12M-Conflict). Here a third of "
        "the people are split into three labels each."
    )
    title = "A third of the people under three labels"
    tables = (
        Table(title, FULL.name, with_changes(cells, *split), note=_THRESHOLDS),
        Table("Clean labels", FULL.name, cells, note="What the same heads do without conflict."),
    )
    return Study("conflict", "Inter-class conflict", question, tables)


def flip(scale: Scale) -> Study:
    """Photos under wrong labels."""
    cells = _under_noise(scale)
    more = {40: _filters()[:1]}  # where the paper has a figure
    tables = tuple(
        Table(
            f"{share} % of the photos under a wrong label",
            FULL.name,
            with_changes((*cells, *more.get(share, ())), f"data.noise.flip={share / 100:g}"),
            note="The same heads on clean labels are in the study of conflict.",
        )
        for share in (20, 40, 60)
    )
    question = (
        "What do heads make of photos under the label of somebody else? The Partial FC paper: at "
        "40 % MFR-All 80.20 for a rate of 0.1 with the filter, 43.87 for full FC (WebFace12M-Flip)."
    )
    return Study("flip", "Flipped labels", question, tables)


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

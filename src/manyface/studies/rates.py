"""Studies of how many class centers a step needs: the sample rate, and more and more people."""

from manyface.studies.cells import Cell, Changes, Scale, Study, Table
from manyface.studies.compared import (
    FULL,
    LONG_TAIL,
    learning_rates,
    on_lfw,
    partial,
    pool,
    with_changes,
)

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
    heads = (FULL, *rates, positives)
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
        Table("Sample rate", FULL.name, heads, note=_SIXTEEN),
        Table("Positive classes forced in, long tail", tenth.name,
              with_changes(forced, LONG_TAIL), note=_UNDRAWN),
        Table("Which negatives, long tail", tenth.name, with_changes(which, LONG_TAIL)),
        *on_lfw(scale, "Sample rate, LFW", (FULL, tenth, partial(0.01))),
        _margin_for_the_sample(),
        _own_learning_rates(),
        learning_rates("class centers", "head", {
            0.0025: (FULL, tenth, positives), **dict.fromkeys((0.005, 0.01, 0.02), heads),
        }, own=0.005),
    )  # fmt: skip
    question = (
        "How many of the negative class centers does a step need? The papers: a tenth, drawn at "
        "random beside the positive ones, loses next to nothing (WebFace12M: IJB-C at 1e-4 97.56 "
        "against 97.59 of all, MFR-All 94.49 against 94.69). The paper of 2020 compares with a "
        "sample that is random throughout, positive classes not forced in."
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
        "millions. Tables show people equally often, that of the fewest more: with more people "
        "training is longer. "
        "Tables are judged on people of their own, so only differences compare between them."
    )
    tables = tuple(table(people, seeds) for people, seeds in scale.identities.items())
    return Study("identities", "Number of identities", question, tables)


def _people(scale: Scale, people: int) -> Changes:
    """So many people, and as many photos of each seen as at the scale's own number, or more."""
    steps = scale.steps * max(people / scale.people, 0.5)  # fewer people still want their updates
    return (f"data.synthetic.num_identities={people}", f"schedule.steps={round(steps)}")

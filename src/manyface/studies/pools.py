"""The study of F2C's dynamic class pool, of its parts, and of what stands near it."""

from dataclasses import replace

from manyface.studies.cells import Cell, Scale, Study, Table
from manyface.studies.compared import (
    DUAL,
    F2C,
    FULL,
    OFFICIAL,
    ONE_WAY,
    learning_rates,
    longer,
    on_lfw,
    partial,
    pool,
    trained_longer,
)

_OURS = (
    "F2C without more words is ours, fed by identities alone; as the authors' code: all but scale "
    "and margin, which are those of the other heads. A pool below a batch's identities walks label "
    "by label: a thousandth is 10 slots here, of millions it is thousands."
)
_NEAR = (
    "F2C's step has two directions: each photo is probe, and has a gradient, and is gallery. With "
    "one direction half of the photos of a step are gallery only: so are those of a queue of "
    "features (DCQ), and the batch alone as the queue (N-pair). Each stands here with the same "
    "photos drawn, and with as many photos trained. Both directions are those of semi-siamese "
    "training, whose queue without its older duplicates is F2C 10 % fed by identities."
)
_PARTS = (
    "All but the last two have the other defaults of ours: decay 0.9 of the gallery net, the mean "
    "of both directions. So whether both loaders are better is asked under the authors' too."
)
_WARM = (
    "The learning rate rises to its peak in 3 % of the training, in a long warm-up in 30 %. "
    "ArcFace is by its true derivative, which fails with the short one (margins)."
)
_PAIRS = (
    "F2C is fed pairs of one identity, the other heads ordinary photos: how much of the difference "
    "is that?"
)


def pool_study(scale: Scale) -> Study:
    """F2C's pool, its loaders, and what stands near it."""
    tenth = pool(scale, 0.1)
    sizes = tuple(pool(scale, share) for share in (1, 0.3, 0.1, 0.01, 0.001))
    published = (
        pool(scale, 0.1, *DUAL, name="F2C 10 %, dual loaders"),
        pool(scale, 0.1, *OFFICIAL, name="F2C 10 %, as the authors' code"),
    )
    virtual = Cell("Virtual FC, a tenth of anchors", ("head.method=virtual", "pool.ratio=0.1"))
    parts = (
        tenth,
        pool(scale, 0.1, *DUAL, name="dual loaders 1:1"),
        pool(scale, 0.1, "pool.identity_share=0.6667", name="dual loaders 2:1"),
        pool(scale, 0.1, "pool.identity_share=0.0", name="instance loader only"),
        pool(scale, 0.1, "pool.decay=0.99", name="moving average 0.99"),
        pool(scale, 0.1, "pool.decay=0.999", name="moving average 0.999"),
        pool(scale, 0.1, *OFFICIAL, name="as the authors' code (2:1)"),
        pool(scale, 0.1, *OFFICIAL, "pool.identity_share=1.0", name="the same, identities alone"),
    )
    compared = (FULL, partial(0.1), tenth, replace(pool(scale, 0.01), seeds=1))
    pairs = Cell("full FC, batches of pairs", ("data.batches=pairs",))
    question = (
        "Can a pool of features stand for the class centers? F2C: at comparable accuracy and less "
        "cost, with the pool a tenth to a thousandth of the identities; both loaders are better "
        "than either."
    )
    tables = (
        Table("Size of the pool", FULL.name, (FULL, *sizes, *published), note=_OURS),
        Table("Loaders and gallery net", tenth.name, parts, note=_PARTS),
        Table("Loaders, by the authors' code", parts[-1].name, parts[-2:]),
        Table("Other ways without class centers", tenth.name, (tenth, *_near(scale)), note=_NEAR),
        Table("Virtual FC", tenth.name, (tenth, virtual)),
        Table("Batches of pairs", FULL.name, (FULL, pairs, tenth), note=_PAIRS),
        _warmed_up(scale, tenth),
        *(Table(longer(n), FULL.name, trained_longer(scale, n, compared)) for n in (2, 4)),
        *on_lfw(scale, "F2C on LFW", (FULL, tenth, pool(scale, 0.01))),
        learning_rates("net", "optimizer", dict.fromkeys((0.05, 0.1, 0.2), (FULL, tenth)), own=0.1),
    )
    return Study("pool", "Dynamic class pool", question, tables)


def _warmed_up(scale: Scale, tenth: Cell) -> Table:
    """A long warm-up, in which the features of an untrained net come apart."""
    warm = f"schedule.warmup_steps={round(0.3 * scale.steps)}"
    arcface = ("head.margin=arcface", "head.m=0.3")
    cells = (
        FULL,
        Cell("full FC, long warm-up", (warm,)),
        tenth,
        pool(scale, 0.1, warm, name="F2C 10 %, long warm-up"),
        Cell("F2C 10 %, ArcFace, long warm-up", (*tenth.changes, *arcface, warm), 1),
    )
    return Table("Warm-up", cells[1].name, cells, note=_WARM)


def _near(scale: Scale) -> tuple[Cell, ...]:
    """A queue of features in one direction, and the batch alone, in one and in both."""
    twice = f"train.batch_size={2 * scale.batch}"
    alone = (*F2C, "pool.decay=0.0", f"pool.slots={scale.batch // 2}")
    return (
        pool(scale, 0.1, *ONE_WAY, name="queue, one direction"),
        pool(scale, 0.1, *ONE_WAY, twice, name="queue, one direction, as many trained"),
        Cell("the batch alone, one direction", (*alone, *ONE_WAY)),
        Cell("the batch alone, both directions", (*alone, "pool.identity_share=1.0")),
    )

"""What studies compare: heads as cells, and what is done to all cells of a table alike."""

from collections.abc import Iterable, Mapping, Sequence

from manyface.studies.cells import Cell, Scale, Table

FULL = Cell("full FC")
LONG_TAIL = "data.synthetic.long_tail=100"
F2C = ("head.method=f2c",)
DUAL = ("pool.identity_share=0.5",)
FILTERED = ("head.negatives=interclass_filter",)
ONE_WAY = ("pool.identity_share=1.0", "pool.passes=1")  # a photo is probe or gallery, never both
OFFICIAL = ("pool.preset=official",)


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


def trained_longer(scale: Scale, times: int, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """So many times as long: class centers may need it, where a pool does not."""
    return with_changes(cells, f"schedule.steps={times * scale.steps}")


def longer(times: int) -> str:
    """Title of a table of runs that train so many times as long."""
    return f"{times} times as long"


def learning_rates(
    whose: str, section: str, heads: Mapping[float, Sequence[Cell]], *, own: float
) -> Table:
    """Whether a comparison depends on a learning rate; the first head at its `own` is the
    baseline."""
    cells = tuple(
        Cell(f"{head.name}, {rate:g}", (*head.changes, f"{section}.learning_rate={rate:g}"), 1)
        for rate, each in heads.items()
        for head in each
    )
    baseline = f"{heads[own][0].name}, {own:g}"
    note = f"One seed each: accuracy, and in brackets the points minus {baseline}."
    title = f"Learning rate of the {whose}"
    return Table(title, baseline, cells, note=note, columns=tuple(f"{rate:g}" for rate in heads))


def on_lfw(scale: Scale, title: str, cells: tuple[Cell, ...]) -> Iterable[Table]:
    """The same on LFW, where the scale has a recipe of it."""
    if "lfw" in scale.recipes:
        yield Table(title, cells[0].name, cells, recipe="lfw")

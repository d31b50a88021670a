"""What a study is: tables of cells, each a recipe's changes, trained in some seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

Changes = tuple[str, ...]  # overrides of a recipe, "section.key=value"


@dataclass(frozen=True)
class Cell:
    """One line of a table.

    Attributes:
        name: in the table.
        changes: to the recipe of the scale.
        seeds: 0 to seeds - 1 are trained; None as many as the scale says.
        published: what its authors have published of it.
    """

    name: str
    changes: Changes = ()
    seeds: int | None = None
    published: str = ""


@dataclass(frozen=True)
class Table:
    """Cells that are compared with one of them.

    Attributes:
        title: what is compared.
        baseline: name of the cell that the others are compared with.
        cells: the lines.
        recipe: name of a recipe of the scale, where it is not the first one.
        best_again: so many of the best cells are trained in all seeds of the scale; 0: none.
        note: what a reader should know of it.
        columns: what cells' names end in, after a comma, where it is shown as heads x columns.
        clean: title of the study's table of the same heads, where the data have nothing wrong.
    """

    title: str
    baseline: str
    cells: tuple[Cell, ...]
    recipe: str = "faces"
    best_again: int = 0
    note: str = ""
    columns: tuple[str, ...] = ()
    clean: str = ""

    def __post_init__(self) -> None:
        names = [cell.name for cell in self.cells]
        if self.baseline not in names or len(set(names)) < len(names):
            raise ValueError(f"{self.title}: no baseline {self.baseline!r}, or two of one name")


@dataclass(frozen=True)
class Study:
    """A question, and the tables that answer it.

    Attributes:
        name: as typed.
        title: of its page.
        question: what it asks, and what the papers say; one paragraph.
        tables: what is trained.
        looks: what is measured of each finished run besides its scores (`looking.py`).
    """

    name: str
    title: str
    question: str
    tables: tuple[Table, ...]
    looks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How large the runs of all studies are.

    Attributes:
        name: as typed.
        files: name -> file of a recipe, in the folder of this module; "faces" among the names.
        people: of the recipe "faces".
        steps, batch: steps of such a run, and images of a step.
        seeds: of a cell that does not say.
        identities: numbers of people that are compared, each with its seeds.
        classes: numbers of identities whose cost is compared.
        cells: most cells of a table that are trained, the first ones.
        photos: name of a recipe -> where its photos lie below the folder or file of --data; a
            recipe that is not in it needs none.
    """

    name: str
    files: Mapping[str, str]
    people: int
    steps: int
    batch: int
    seeds: int
    identities: Mapping[int, int]
    classes: Sequence[int]
    cells: int = 1000
    photos: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipes(self) -> dict[str, str]:
        """Name -> text of the recipe."""
        return {name: _text(file) for name, file in self.files.items()}


@cache
def _text(file: str) -> str:
    return files("manyface.studies").joinpath(file).read_text(encoding="utf-8")

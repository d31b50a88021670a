"""The picture of costs and scores, from figures that never were."""

from pathlib import Path

import pytest

from manyface.studies.cells import Cell, Table
from manyface.studies.compared import longer
from manyface.studies.cost import Costs
from manyface.studies.judging import Line
from manyface.studies.summary import PHOTOS, ROWS, write_summary
from manyface.studies.tables import Judged

SIZES = (1_000, 10_000)
LONGER = longer(4)
TABLES = {
    "full FC": ("Sample rate", "Size of the pool", LONGER, *PHOTOS),
    "Partial FC 0.1": ("Sample rate", LONGER, PHOTOS[0]),
    "F2C 10 %": ("Size of the pool", LONGER, PHOTOS[1]),
    "F2C 1 %": ("Size of the pool", LONGER, PHOTOS[1]),
}
EVERY = ("Sample rate", "Size of the pool", LONGER)


def judged(*titles: str) -> list[Judged]:
    """Tables with all cells that the picture asks of them."""
    found = []
    for title in titles:
        cells = tuple(Cell(cell) for _, cell in ROWS if title in TABLES[cell])
        table = Table(title, cells[0].name, cells)
        steps = 200 if title == LONGER else 50
        run = {"verification_accuracy": 0.875, "num_identities": 500}
        runs = [{**run, "steps": steps, "batch_size": 60}] * 2
        found.append(Judged(table, [Line(cell, None, list(runs)) for cell in cells]))
    return found


@pytest.fixture
def costs(tmp_path: Path) -> Costs:
    """All ran with 1,000 identities; full FC with no more."""
    found = Costs(tmp_path / "costs.json")
    ran = {
        "step_seconds": {"median": 0.25},
        "resident_bytes": 2**30,
        "peak_extra_bytes": 2**29,
    }
    for size in SIZES:
        for _, name in ROWS:
            failed = name == "full FC" and size == SIZES[-1]
            found.add(name, size, {"needed_bytes": 2**40} if failed else ran)
    return found


def test_it_shows_the_largest_size_at_which_all_ran(tmp_path: Path, costs: Costs) -> None:
    path = write_summary(judged(*EVERY), costs, SIZES, tmp_path)
    assert path is not None
    text = path.read_text()
    assert "at 1,000 identities" in text
    assert "500 people shown 6 times" in text
    assert "500 people shown 24 times" in text
    assert text.count("0.25 s</text>") == text.count("1.50 GiB</text>") == len(ROWS)
    assert text.count("87.5 %</text>") == 2 * len(ROWS)
    assert "LFW" not in text


def test_photos_stand_beside_where_there_are_some(tmp_path: Path, costs: Costs) -> None:
    path = write_summary(judged(*EVERY, *PHOTOS), costs, SIZES, tmp_path)
    assert path is not None
    text = path.read_text()
    assert "LFW's people shown 6 times" in text.replace("&#x27;", "'").replace("&#39;", "'")
    assert text.count("87.5 %</text>") == 3 * len(ROWS)


def test_without_all_of_it_there_is_none(tmp_path: Path, costs: Costs) -> None:
    for missing in EVERY:
        others = judged(*(title for title in EVERY if title != missing))
        assert write_summary(others, costs, SIZES, tmp_path) is None
    every = judged(*EVERY)
    assert write_summary(every, Costs(tmp_path / "none.json"), SIZES, tmp_path) is None
    assert write_summary(every, costs, SIZES[1:], tmp_path) is None
    assert not (tmp_path / "summary.svg").exists()

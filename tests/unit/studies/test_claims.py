"""Whether a claim holds, by the interval of a difference, and what is written of it."""

from pathlib import Path

import pytest

from manyface.studies.catalog import studies_of
from manyface.studies.cells import Cell, Table
from manyface.studies.claims import CLAIMS, TAIL, better, loses_less_than, worse
from manyface.studies.claims_page import write_claims
from manyface.studies.cost import Costs
from manyface.studies.differences import Difference, over_seeds
from manyface.studies.judging import Line
from manyface.studies.scales import find_scale
from manyface.studies.tables import Judged


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.4, -0.1, "yes"),  # a loss, of less than what counts as none
        (-0.4, 2.0, "yes"),
        (-3.0, -0.6, "no"),
        (-2.1, -0.2, "a loss, of 0.2 to 2.1 points"),
        (-1.7, 0.3, "cannot be told: at most 1.7 points are lost"),
    ],
)
def test_no_loss(low: float, high: float, said: str) -> None:
    assert loses_less_than(0.5)(Difference((low + high) / 2, low, high)) == said


def test_better_and_worse() -> None:
    above, below, across = (Difference(0, *ends) for ends in ((1, 2), (-2, -1), (-1, 1)))
    assert [better(each) for each in (above, below, across)] == ["yes", "no", "cannot be told"]
    assert [worse(each) for each in (above, below, across)] == ["no", "yes", "cannot be told"]


def test_differences_over_seeds() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - 2.0 == pytest.approx(4.303 / 3**0.5, rel=0.02)
    assert over_seeds([1.0]).low == -float("inf")


def run(accuracy: float, passive: float, *, seed: int = 0) -> dict[str, object]:
    groups = [{"group": "tail", "accuracy": accuracy}, {"group": "head", "accuracy": 0.5}]
    updates = [{"group": "tail", "own": 1.0, "passive": passive}]
    looks = {"groups": groups, "updates": updates}
    return {"seed": seed, "verification_accuracy": 0.75, "looks": looks}


def claims(folder: Path, lines: list[Line]) -> dict[str, list[str]]:
    """Claim -> its other columns."""
    table = Table(TAIL, "full FC", tuple(line.cell for line in lines))
    text = write_claims(
        [Judged(table, lines)], Costs(folder / "none.json"), folder, scale="small"
    ).read_text()
    rows = [row.split("|")[1:-1] for row in text.splitlines() if row.startswith("|")]
    rows = [[each.strip() for each in row] for row in rows]
    return {row[0]: row[1:] for row in rows}


def test_the_tail_is_judged_on_its_own_people(tmp_path: Path) -> None:
    lines = [
        Line(Cell("full FC"), None, [run(0.70, 1990), run(0.72, 1992, seed=1)]),
        Line(
            Cell("Partial FC 0.1"), Difference(1, -1, 3), [run(0.75, 210), run(0.77, 212, seed=1)]
        ),
    ]
    found = claims(tmp_path, lines)
    moved = found["centers of the tail are moved without an own photo less often"]
    assert moved[2:4] == ["1,991 and 211 steps", "yes"]
    gained = found["sampling helps people with few photos, on new ones"]
    assert gained[2].startswith("+5.0 [")
    assert gained[3] == "yes"


def test_people_with_few_photos_are_compared_at_equal_seeds(tmp_path: Path) -> None:
    full = [run(accuracy, 9, seed=seed) for seed, accuracy in enumerate((0.7, 0.8, 0.9))]
    sampled = [run(0.8, 5, seed=1), run(0.9, 5, seed=2)]
    lines = [Line(Cell("full FC"), None, full),
             Line(Cell("Partial FC 0.1"), Difference(1, -1, 3), sampled)]  # fmt: skip
    gained = claims(tmp_path, lines)["sampling helps people with few photos, on new ones"]
    assert gained[2:4] == ["+0.0 [+0.0, +0.0] points", "cannot be told"]


def test_claims_are_looked_for_where_a_scale_has_them() -> None:
    tables = {
        scale: [
            (table.title, cell.name)
            for study in studies_of(find_scale(scale)).values()
            for table in study.tables
            for cell in table.cells
        ]
        for scale in ("small", "paper")
    }
    for scale, found in tables.items():
        places = [claim.place(scale) for claim in CLAIMS]
        assert [each for each in places if each and each not in found] == []
    assert sum(claim.place("paper") is not None for claim in CLAIMS) >= 10


def test_a_verdict_of_one_seed_says_so(tmp_path: Path) -> None:
    lines = [
        Line(Cell("full FC"), None, [run(0.7, 10)]),
        Line(Cell("Partial FC 0.1"), Difference(2, 1, 3), [run(0.7, 5)]),
    ]
    found = claims(tmp_path, lines)
    line = found["sampling helps with a long tail, for new people"]
    assert line[2:4] == ["+2.0 [+1.0, +3.0] points, at 0.750", "yes (one seed)"]
    moved = found["centers of the tail are moved without an own photo less often"]
    assert moved[3] == "yes (one seed)"
    assert found["sampling helps people with few photos, on new ones"][2:4] == ["", ""]


def test_what_is_not_finished_stays_open(tmp_path: Path) -> None:
    found = claims(tmp_path, [Line(Cell("full FC"), None, [run(0.7, 10)])])
    assert found["sampling helps people with few photos, on new ones"][2:4] == ["", ""]
    assert found["Virtual FC is worse than F2C"][2:4] == ["", ""]

"""What is measured again of costs, and what is no file of them."""

from pathlib import Path

import pytest

from manyface.base.errors import DataError
from manyface.studies.cost import METHODS, Costs, _missing
from manyface.studies.cost_page import write_costs


def test_what_died_is_measured_again_and_what_does_not_fit_is_not(tmp_path: Path) -> None:
    costs = Costs(tmp_path / "costs.json")
    for name in METHODS:
        costs.add(name, 10, {"fits": False, "needed_bytes": 1})
    costs.add("full FC", 10, {"fits": True, "needed_bytes": 1, "error": "killed"})
    assert list(_missing(Costs.read(costs.path), [10], checkout=None)) == [("full FC", 10)]


def test_the_page_of_methods_that_all_died(tmp_path: Path) -> None:
    costs = Costs(tmp_path / "costs.json")
    costs.add("full FC", 10, {"fits": True, "needed_bytes": 2**30, "error": "killed"})
    page = write_costs(costs, [10], tmp_path, command="manyface reproduce cost")
    assert "killed" in page.read_text()
    assert "| full FC | 10 | killed |" in (tmp_path / "cost.md").read_text()
    assert not list(tmp_path.glob("*.svg"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"figures": []}'])
def test_no_costs(tmp_path: Path, content: str) -> None:
    (tmp_path / "costs.json").write_text(content, "utf-8")
    with pytest.raises(DataError, match="holds no costs"):
        Costs.read(tmp_path / "costs.json")

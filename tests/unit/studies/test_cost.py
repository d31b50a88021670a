"""What is measured again of costs, and what is no file of them."""

import json
from pathlib import Path

import pytest

from manyface.base.errors import ConfigError, DataError
from manyface.observe.provenance import processor
from manyface.studies.cost import METHODS, Costs, _missing, check_checkout, measure
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


NOT_RUN = {"fits": False, "needed_bytes": 1}


def ran(seconds: float, **more: object) -> dict[str, object]:
    times = {"median": seconds, "min": seconds / 2, "max": 2 * seconds}
    return {"fits": True, "needed_bytes": 1, "step_seconds": times, "resident_bytes": 2**30,
            "peak_extra_bytes": 0, **more}  # fmt: skip


def at(device: str, threads: int) -> dict[str, object]:
    return {"device": device, "threads": threads, "date": "2025-11-30", "torch": "2.13",
            "commit": "0123456789"}  # fmt: skip


@pytest.mark.parametrize(
    "figures",
    [
        *([], {"x": NOT_RUN}, {"full FC at 10": {}}, {"full FC at 10": []}),
        {"full FC at 10": {"fits": True, "needed_bytes": 1}},
        *({"full FC at 10": ran(seconds)} for seconds in (0, -1, float("inf"))),
    ],
)
def test_damaged_costs(tmp_path: Path, figures: object) -> None:
    (tmp_path / "costs.json").write_text(json.dumps({"figures": figures}), "utf-8")
    with pytest.raises(DataError, match=r"costs\.json holds no costs of heads .*: figures: .*move"):
        Costs.read(tmp_path / "costs.json")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_no_costs(tmp_path: Path, content: str) -> None:
    (tmp_path / "costs.json").write_text(content, "utf-8")
    with pytest.raises(DataError, match="holds no costs"):
        Costs.read(tmp_path / "costs.json")


def test_the_page_says_where_it_was_measured_and_how_times_spread(tmp_path: Path) -> None:
    costs = Costs(tmp_path / "costs.json")
    costs.add("full FC", 10, ran(0.5, measured=at("A <chip>", 2)))
    costs.add("F2C 10 %", 10, ran(0.25))
    page = write_costs(Costs.read(costs.path), [10], tmp_path, command="").read_text()
    text = (tmp_path / "cost.md").read_text()
    assert "Measured on A <chip>, 2 threads, torch 2.13, commit 0123456, 2025-11-30." in text
    assert "Machine not recorded." in text
    assert "| full FC | 10 | 0.5 [0.25, 1] |" in text
    assert "A &lt;chip&gt;, 2 threads" in page


def test_where_full_fc_grows_by_more_than_its_rows_the_page_says_so(tmp_path: Path) -> None:
    costs = Costs(tmp_path / "costs.json")
    for size, seconds in {10: 1.0, 100: 11.0, 1000: 190.0}.items():
        costs.add("full FC", size, ran(seconds))
    write_costs(costs, [10, 100, 1000], tmp_path, command="")
    text = (tmp_path / "cost.md").read_text()
    assert text.count("times as long as at") == 1
    assert "At 1,000 identities full FC takes 17 times as long as at 100, for 10 times" in text


@pytest.mark.parametrize("machine", [at("another chip", 2), at(processor(), 3)])
def test_machines_are_not_mixed(tmp_path: Path, machine: dict[str, object]) -> None:
    costs = Costs(tmp_path / "costs.json")
    costs.add("full FC", 10, ran(0.5, measured=machine))
    with pytest.raises(DataError, match=f"of {machine['device']}.* -d"):
        measure(costs, [10], threads=2, checkout=None, report=print)
    for name in METHODS:
        costs.add(name, 10, ran(0.5, measured=machine))
    measure(costs, [10], threads=2, checkout=None, report=print)  # nothing is missing


@pytest.mark.slow
def test_figures_say_where_they_are_of(tmp_path: Path) -> None:
    costs = Costs(tmp_path / "costs.json")
    for name in set(METHODS) - {"F2C 10 %"}:
        costs.add(name, 1000, NOT_RUN)
    measure(costs, [1000], threads=1, checkout=None, report=print)
    found = (Costs.read(costs.path).of("F2C 10 %", 1000) or {})["measured"]
    assert (found["device"], found["threads"]) == (processor(), 1)
    assert {"date", "commit", "torch"} <= found.keys()


def test_a_checkout_has_the_head(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--checkout .*partial_fc_v2\.py"):
        check_checkout(tmp_path)
    for name in ("partial_fc_v2.py", "losses.py"):
        (tmp_path / name).touch()
    check_checkout(tmp_path)

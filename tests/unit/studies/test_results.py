"""Ledger, tables and pages from runs that never were: what is compared with what."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.report.runs import Run
from manyface.studies.cells import Cell, Scale, Study, Table
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.judging import again, judge
from manyface.studies.ledger import _KEPT, VERSION, Ledger
from manyface.studies.page import Shown, write_study
from manyface.studies.running import missing
from manyface.studies.scales import find_scale
from manyface.studies.tables import Judged, said, text_of

PAIRS = 40  # of the tiny scale
FULL, TENTH = Cell("full FC"), Cell("tenth", ("head.sample_rate=0.1",))
TABLE = Table("Rates", "full FC", (FULL, TENTH))


def scale(seeds: int = 2) -> Scale:
    tiny = find_scale("tiny")
    return Scale(**{**vars(tiny), "seeds": seeds, "cells": 1000})


def ledger(folder: Path, shown: dict[Job, float], **looks: object) -> Ledger:
    """Runs of these accuracies: the first pairs are decided rightly."""
    runs = {}
    for job, accuracy in shown.items():
        correct = np.arange(PAIRS) < round(accuracy * PAIRS)
        runs[job.digest] = {
            "cell": job.cell.name, "seed": job.seed, "verification_accuracy": accuracy,
            "looks": looks, "num_pairs": PAIRS, "tar_at_far": {"0.01": accuracy / 2},
            "device": "cpu", "precision": "fp32", "commit": "0123456789",
            "steps": 8, "batch_size": 16, "num_identities": 200,
            "correct": np.packbits(correct).tobytes().hex(),
        }  # fmt: skip
    path = folder / "results.json"
    path.write_text(json.dumps({"version": VERSION, "runs": runs}), "utf-8")
    return Ledger(path)


def jobs(seeds: int = 2) -> list[Job]:
    return jobs_of(TABLE, scale(seeds))


def test_differences_are_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    full0, tenth0, full1, tenth1 = jobs()
    found = ledger(tmp_path, {full0: 0.75, tenth0: 0.5, tenth1: 1.0})
    full, tenth = judge(TABLE, scale(), found)
    assert (full.accuracies, full.ends, full.less) == ([0.75], None, None)
    assert tenth.accuracies == [0.5, 1.0]
    assert tenth.less is not None
    assert tenth.less.value == pytest.approx(-25.0)  # of seed 0 alone
    assert tenth.less.low < -25.0 < tenth.less.high
    around = [0.75 + (end + 25) / 100 for end in (tenth.less.low, tenth.less.high)]
    assert tenth.ends == pytest.approx(tuple(around))
    assert [job.digest for job in missing(jobs(), found)] == [full1.digest]


def test_without_its_baseline_a_line_has_no_difference(tmp_path: Path) -> None:
    (line,) = judge(TABLE, scale(), ledger(tmp_path, {jobs()[1]: 0.5}))
    assert (line.cell, line.less) == (TENTH, None)


def test_where_there_is_one_seed_other_tables_tell_how_seeds_scatter(tmp_path: Path) -> None:
    alone = Table(
        "One seed", "full FC", (Cell("full FC", seeds=1), Cell("tenth", TENTH.changes, 1))
    )
    full0, tenth0, full1, tenth1 = jobs()
    found = ledger(tmp_path, {full0: 0.75, tenth0: 0.5, full1: 0.5, tenth1: 0.75})
    narrow, wide = (
        judge(alone, scale(), found, beside=tables)[1].less for tables in ((), (TABLE, alone))
    )
    assert narrow is not None
    assert wide is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_missing_asks_for_all_that_studies_look_at(tmp_path: Path) -> None:
    plain, looked = jobs_of(TABLE, scale(1)), jobs_of(TABLE, scale(1), looks=("cosines",))
    found = ledger(tmp_path, {plain[0]: 0.5})
    assert [job.cell.name for job in missing(plain, found)] == ["tenth"]
    wanted = missing([*plain, *looked], found)
    assert [(job.cell.name, job.looks) for job in wanted] == [
        ("full FC", ("cosines",)), ("tenth", ("cosines",)),
    ]  # fmt: skip


def test_a_run_is_looked_at_for_studies_that_may_come(tmp_path: Path) -> None:
    plain, looked = jobs_of(TABLE, scale(1)), jobs_of(TABLE, scale(1), looks=("cosines",))
    found = ledger(tmp_path, {plain[0]: 0.5})
    wanted = missing(plain, found, others=looked)
    assert [(job.cell.name, job.looks) for job in wanted] == [("tenth", ("cosines",))]


def test_the_best_are_trained_again(tmp_path: Path) -> None:
    cells = tuple(Cell(f"m {m}", (f"head.m={m}",), 1) for m in (0.1, 0.2, 0.3, 0.4))
    table = Table("Margins", "m 0.1", cells, best_again=2)
    first = jobs_of(table, scale(3))
    assert [job.seed for job in first] == [0] * 4
    shown = dict(zip(first, (0.5, 0.9, 0.6, 0.8), strict=True))
    assert again(table, scale(3), ledger(tmp_path, dict(list(shown.items())[:3]))) == []
    more = again(table, scale(3), ledger(tmp_path, shown))
    assert {(job.cell.name, job.seed) for job in more} == {
        (name, seed) for name in ("m 0.1", "m 0.2", "m 0.4") for seed in (1, 2)
    }


def test_page_markdown_and_pictures(tmp_path: Path) -> None:
    steps = [{"step": 4, "own": 0.1, "nearest_other": 0.7},
             {"step": 8, "own": 0.2, "nearest_other": 0.6}]  # fmt: skip
    groups = [{"group": "tail", "people": 9, "photos": 20, "accuracy": 0.625}]
    updates = [{"group": "tail", "own": 1.5, "passive": 6.25}]
    found = ledger(
        tmp_path, dict.fromkeys(jobs(), 0.75), cosines=steps, groups=groups, updates=updates
    )
    table = replace(TABLE, note="What to know.", cells=(FULL, replace(TENTH, published="97.5")))
    study = Study("rate", "A <title>", "Why?", (table,), looks=("cosines", "groups", "updates"))
    judged = [Judged(table, judge(table, scale(), found))]
    page = write_study(
        Shown(study, judged, scale(), "manyface reproduce rate"), tmp_path
    ).read_text()
    text = (tmp_path / "rate.md").read_text()
    assert "A &lt;title&gt;" in page
    assert "head.sample_rate=0.1" in page
    assert (
        "| tenth | 0.750 0.750 | 0.750 ±0.000 | +0.0 [+0.0, +0.0] | 0.375 ±0.000 | 97.5 |" in text
    )
    assert "| tenth | 0.200 | 0.600 |" in text
    assert "| tenth | 0.625 ±0.000 |" in text
    assert "| tenth | 1.5, 6.2 |" in text
    for words in ("What to know.", "Not to be told from full FC: tenth.", "share of 40 pairs",
                  "Trained on cpu, fp32; commits 0123456"):  # fmt: skip
        assert words in text, words
        assert words in page, words
    drawing = (tmp_path / "rate-1.svg").read_text()
    assert drawing.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert drawing.count("<svg") == 1
    assert "+0.0 [+0.0, +0.0] points" in drawing


def test_a_page_shows_the_looks_of_its_own_study(tmp_path: Path) -> None:
    found = ledger(
        tmp_path, dict.fromkeys(jobs(), 0.75), groups=[{"group": "tail", "accuracy": 0.5}]
    )
    judged = [Judged(TABLE, judge(TABLE, scale(), found))]
    write_study(Shown(Study("rate", "T", "Why?", (TABLE,)), judged, scale(), ""), tmp_path)
    assert "tail" not in (tmp_path / "rate.md").read_text()


def test_learning_rates_are_columns(tmp_path: Path) -> None:
    names = ("a, 0.1", "b, 0.1", "a, 0.2", "b, 0.2")
    cells = tuple(Cell(name, (f"head.m=0.{k}",), 1) for k, name in enumerate(names, start=1))
    table = Table("Rates", names[0], cells, columns=("0.1", "0.2"))
    first = jobs_of(table, scale())
    found = ledger(tmp_path, dict(zip(first[:3], (0.75, 0.5, 1.0), strict=True)))
    judged = Judged(table, judge(table, scale(), found))
    assert text_of(judged) == (
        ["", "0.1", "0.2"], [["a", "0.750", "1.000 (+25.0)"], ["b", "0.500 (-25.0)", ""]],
    )  # fmt: skip
    write_study(Shown(Study("rate", "T", "Why?", (table,)), [judged], scale(), ""), tmp_path)
    assert not (tmp_path / "rate-1.svg").exists()
    assert said(judged) == []


CLEAN = replace(TABLE, title="Clean")
NOISY = Table(
    "Noisy",
    "full FC",
    tuple(replace(each, changes=(*each.changes, "head.m=0.3")) for each in (FULL, TENTH)),
    clean="Clean",
)


def test_what_is_wrong_with_the_data_costs_each_head_something(tmp_path: Path) -> None:
    shown = dict(zip(jobs_of(CLEAN, scale(1)), (0.75, 0.5), strict=True))
    shown |= dict(zip(jobs_of(NOISY, scale(1)), (0.5, 0.475), strict=True))
    found = ledger(tmp_path, shown)
    study = [Judged(each, judge(each, scale(1), found)) for each in (CLEAN, NOISY)]
    headings, lines = text_of(study[1], study)
    assert headings[-2:] == ["minus itself with clean labels", "minus that of full FC"]
    assert [line[-2] for line in lines] == ["-25.0", "-2.5"]
    assert [line[-2] for line in text_of(study[1])[1]] == ["", ""]
    assert len(text_of(study[0], study)[0]) == len(headings) - 2


def test_what_wrong_labels_cost_is_compared_by_seed(tmp_path: Path) -> None:
    """Full FC loses 0.25 and 0.3, the tenth 0.05 and 0.15: 20 and 15 points less."""
    clean = {"full FC": (0.75, 0.8), "tenth": (0.5, 0.55)}
    lost = {"full FC": (0.25, 0.3), "tenth": (0.05, 0.15)}
    shown = {job: clean[job.cell.name][job.seed] for job in jobs_of(CLEAN, scale())}
    for job in jobs_of(NOISY, scale()):
        shown[job] = clean[job.cell.name][job.seed] - lost[job.cell.name][job.seed]
    full, tenth = judge(NOISY, scale(), ledger(tmp_path, shown), beside=(CLEAN, NOISY))
    assert full.withstands is None
    assert tenth.withstands is not None
    assert tenth.withstands.value == pytest.approx(17.5)
    reach = 12.706 * 3.5355 / 2**0.5  # Student's with one degree of freedom
    assert tenth.withstands.high - 17.5 >= reach * 0.97


def test_of_a_single_seed_nothing_is_said_of_what_wrong_labels_cost(tmp_path: Path) -> None:
    shown = dict(zip(jobs_of(CLEAN, scale(1)), (0.75, 0.5), strict=True))
    shown |= dict(zip(jobs_of(NOISY, scale(1)), (0.5, 0.475), strict=True))
    _, tenth = judge(NOISY, scale(1), ledger(tmp_path, shown), beside=(CLEAN, NOISY))
    assert tenth.less is not None
    assert tenth.withstands is None


def test_what_another_study_looked_at_is_kept(tmp_path: Path) -> None:
    job = jobs()[0]
    found = ledger(tmp_path, {job: 0.5}, cosines=[])
    folds = SimpleNamespace(correct=np.ones(PAIRS, bool))
    row = {**dict.fromkeys(_KEPT, 1), "tar_at_far": {}, "precision": "fp32", "device": "cpu",
           "commit": None}  # fmt: skip
    run = SimpleNamespace(scores={"pairs": SimpleNamespace(folds=folds)}, row=row)
    found.add(job, cast(Run, run), {"groups": []})
    entry = Ledger(found.path).runs[job.digest]
    assert entry["looks"] == {"cosines": [], "groups": []}
    assert entry["verification_accuracy"] == 1.0


def test_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for content in ("{", "[]", '{"version": 99, "runs": {}}', '{"version": 1, "runs": []}'):
        path.write_text(content, "utf-8")
        with pytest.raises(DataError, match="no results of studies"):
            Ledger(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("looks", None, "looks"),
        ("looks", {"cosines": [{}]}, "cosines: 0: step: Field required"),
        ("verification_accuracy", 5.0, "less than or equal to 1, got 5.0"),
        ("verification_accuracy", float("nan"), "finite number, got nan"),
        ("verification_accuracy", 0.75, "verification_accuracy is 0.75, but 0.5 of correct"),
        ("correct", "zz", "hexadecimal"),
        ("correct", "ff", "correct has not the bits of 40 pairs"),
        ("num_pairs", 80, "correct has not the bits of 80 pairs"),
        ("device", 3, "valid string, got 3"),
    ],
)
def test_a_damaged_run_is_named(tmp_path: Path, key: str, value: object, said: str) -> None:
    found = ledger(tmp_path, dict.fromkeys(jobs(), 0.5))
    content = json.loads(found.path.read_text("utf-8"))
    digest = jobs()[1].digest
    content["runs"][digest][key] = value
    found.path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(
        DataError, match=rf"results\.json .*runs: {digest}: .*{said}.*take that run"
    ):
        Ledger(found.path)


@pytest.mark.parametrize("key", ["looks", "correct", "num_pairs", "tar_at_far", "commit", "seed"])
def test_what_a_run_lacks_is_named(tmp_path: Path, key: str) -> None:
    found = ledger(tmp_path, dict.fromkeys(jobs(), 0.5))
    content = json.loads(found.path.read_text("utf-8"))
    del content["runs"][jobs()[0].digest][key]
    found.path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(DataError, match=f"{jobs()[0].digest}: {key}: Field required"):
        Ledger(found.path)

"""Ledger, tables and pages from runs that never were: what is compared with what."""

import json
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
from manyface.studies.page import Judged, write_study
from manyface.studies.running import missing
from manyface.studies.scales import find_scale

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
            "looks": looks, "num_pairs": PAIRS, "correct": np.packbits(correct).tobytes().hex(),
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
    assert (full.accuracies, full.spread, full.less) == ([0.75], None, None)
    assert tenth.accuracies == [0.5, 1.0]
    assert tenth.spread == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert tenth.less is not None
    assert tenth.less.value == pytest.approx(-25.0)  # of seed 0 alone
    assert tenth.less.low < -25.0 < tenth.less.high
    assert [job.digest for job in missing(jobs(), found)] == [full1.digest]


def test_without_its_baseline_a_line_has_no_difference(tmp_path: Path) -> None:
    (line,) = judge(TABLE, scale(), ledger(tmp_path, {jobs()[1]: 0.5}))
    assert (line.cell, line.less) == (TENTH, None)


def test_missing_asks_for_all_that_studies_look_at(tmp_path: Path) -> None:
    plain, looked = jobs_of(TABLE, scale(1)), jobs_of(TABLE, scale(1), looks=("cosines",))
    found = ledger(tmp_path, {plain[0]: 0.5})
    assert [job.cell.name for job in missing(plain, found)] == ["tenth"]
    wanted = missing([*plain, *looked], found)
    assert [(job.cell.name, job.looks) for job in wanted] == [
        ("full FC", ("cosines",)), ("tenth", ("cosines",)),
    ]  # fmt: skip


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
    study = Study("rate", "A <title>", "Why?", (TABLE,))
    judged = [Judged(TABLE, judge(TABLE, scale(), found))]
    page = write_study(study, judged, tmp_path, command="manyface reproduce rate").read_text()
    text = (tmp_path / "rate.md").read_text()
    assert "A &lt;title&gt;" in page
    assert "head.sample_rate=0.1" in page
    assert "| tenth | 0.750 0.750 | 0.750 | 0.000 | +0.0 [+0.0, +0.0] |" in text
    assert "| tenth | 0.200 | 0.600 |" in text
    assert "| tenth | 0.625 |" in text
    assert "| tenth | 1.5, 6.2 |" in text
    drawing = (tmp_path / "rate-1.svg").read_text()
    assert drawing.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert drawing.count("<svg") == 1


def test_what_another_study_looked_at_is_kept(tmp_path: Path) -> None:
    job = jobs()[0]
    found = ledger(tmp_path, {job: 0.5}, cosines=[])
    folds = SimpleNamespace(correct=np.ones(PAIRS, bool))
    row = dict.fromkeys(_KEPT, 0.5)
    run = SimpleNamespace(scores={"pairs": SimpleNamespace(folds=folds)}, row=row)
    found.add(job, cast(Run, run), {"groups": []})
    assert Ledger(found.path).runs[job.digest]["looks"] == {"cosines": [], "groups": []}


def test_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for content in ("{", "[]", '{"version": 99, "runs": {}}', '{"version": 1, "runs": []}'):
        path.write_text(content, "utf-8")
        with pytest.raises(DataError, match="no results of studies"):
            Ledger(path)

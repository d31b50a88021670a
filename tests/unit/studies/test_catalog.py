"""Every cell of every study is a recipe that can be, and shared cells are one run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manyface.base.errors import ConfigError
from manyface.cli.reproduce import NAMES
from manyface.config import Config
from manyface.studies.catalog import studies_of
from manyface.studies.cells import Cell, Table
from manyface.studies.claims import CLAIMS, OF_CAPACITY, OF_COST
from manyface.studies.cost import METHODS
from manyface.studies.jobs import FIRST_DEFAULTS, Job, jobs_of, jobs_of_study
from manyface.studies.ledger import Ledger
from manyface.studies.running import missing
from manyface.studies.scales import find_scale
from manyface.train.build import build_training

SCALES = ("tiny", "small", "paper")
ROOT = Path(__file__).parents[3]
GOLDEN, RESULTS = ROOT / "tests/golden", ROOT / "docs/studies/small/results.json"


@pytest.mark.parametrize("name", SCALES)
def test_every_recipe_can_be(name: str) -> None:
    scale = find_scale(name)
    for study in studies_of(scale).values():
        for table in study.tables:
            for job in jobs_of(table, scale):
                config = job.config
                assert config.run.seed == job.seed
                last = dict(change.split("=", 1) for change in job.cell.changes)
                for key, value in last.items():
                    section, _, rest = key.partition(".")
                    found = config.model_dump()[section]
                    for part in rest.split("."):
                        found = found[part]
                    if value.startswith("["):
                        assert list(found) == json.loads(value), key
                    else:
                        same = str(found).lower() == value
                        assert value == "" or same or found == float(value), key


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_cells_that_studies_share_are_one_run(name: str) -> None:
    scale = find_scale(name)
    studies = studies_of(scale).values()
    jobs = [job for study in studies for table in study.tables for job in jobs_of(table, scale)]
    digests = {job.digest for job in jobs}
    assert len(digests) < 0.9 * len(jobs)
    full = [job.digest for job in jobs if not job.cell.changes and job.seed == 0 and not job.data]
    assert len(set(full)) == len({job.recipe for job in jobs if not job.cell.changes})


@pytest.mark.parametrize("name", SCALES)
def test_no_cell_is_compared_with_itself(name: str) -> None:
    scale = find_scale(name)
    for study in studies_of(scale).values():
        for table in study.tables:
            digests = [job.digest for job in jobs_of(table, scale)]
            assert len(set(digests)) == len(digests), table.title


def test_claims_are_of_cells_that_there_are() -> None:
    tables = [t for study in studies_of(find_scale("small")).values() for t in study.tables]
    cells = {(table.title, cell.name) for table in tables for cell in table.cells}
    assert {(claim.table, claim.cell) for claim in CLAIMS} <= cells
    assert {*OF_CAPACITY, *(name for each in OF_COST for name in (each.ours, each.theirs))} <= set(
        METHODS
    )


def test_the_command_line_knows_all_studies() -> None:
    assert (*studies_of(find_scale("small")), "cost") == NAMES


def test_every_cell_can_be_built() -> None:
    """Cells that `tiny` leaves out fail here, not after hours of `small`."""
    scale = replace(find_scale("tiny"), cells=1000)
    jobs = [
        job
        for study in studies_of(scale).values()
        for table in study.tables
        for job in jobs_of(table, scale)
    ]
    for job in {job.digest: job for job in jobs}.values():
        training = build_training(job.config, warn=lambda text: None)
        (batch,) = training.loader.batches(0, 1)
        training.method.begin_step()
        training.method.loss(batch).backward()


def job(*changes: str, seed: int = 0, data: tuple[str, ...] = ()) -> Job:
    return Job(Cell("one", changes), seed, find_scale("tiny").recipes["faces"], data)


def test_digest_is_of_what_is_learned() -> None:
    one = job().digest
    assert job("train.keep=3", "train.log_every=7").digest == one
    assert job(data=("data.path=/somewhere",)).digest == one
    assert Job(Cell("other"), 0, find_scale("tiny").recipes["faces"]).digest == one
    for other in (job(seed=1), job("head.m=0.21"), job("head.sample_rate=0.1"),
                  job("head.method=f2c"), job("head.method=f2c", "pool.decay=0.5"),
                  job("data.noise.flip=0.1")):  # fmt: skip
        assert other.digest != one
    assert job("head.method=f2c").digest != job("head.method=f2c", "pool.decay=0.5").digest


def test_another_default_is_another_run() -> None:
    """Ledgers began with a learning rate of 0.1 as the default; it is 0.02 now."""
    assert job("optimizer.learning_rate=0.02").digest == job().digest
    assert job("optimizer.learning_rate=0.1").digest != job().digest


def test_first_defaults_are_those_of_the_first_ledgers() -> None:
    """A default that changes is entered in FIRST_DEFAULTS, or old results would stand for it."""
    then = json.loads((GOLDEN / "first_defaults.json").read_text())
    now = Config().model_dump(mode="json")
    for section, keys in FIRST_DEFAULTS.items():
        now[section].update(keys)
    assert _common(now, then) == then


def _common(table: dict[str, Any], of: dict[str, Any]) -> dict[str, Any]:
    """`table` without the keys that are not in `of`."""
    return {
        key: _common(table[key], value) if isinstance(value, dict) and value else table[key]
        for key, value in of.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "rate",
        "pool",
        "conflict",
        "tail",
        "margins",
        "backbones",
        "identities",
        "flip",
    ],
)
def test_results_of_this_project_are_of_its_studies(name: str) -> None:
    """Nothing that a ledger is keyed by has changed since; LFW's runs are asked for too."""
    scale, ledger = find_scale("small"), Ledger(RESULTS)
    assert missing(list(jobs_of_study(studies_of(scale)[name], scale, data=RESULTS)), ledger) == []


def test_a_table_has_its_baseline_once() -> None:
    with pytest.raises(ValueError, match="no baseline"):
        Table("t", "a", (Cell("b"),))
    with pytest.raises(ValueError, match="two of one name"):
        Table("t", "a", (Cell("a"), Cell("a")))


def test_unknown_scale() -> None:
    with pytest.raises(ConfigError, match="tiny, small or paper"):
        find_scale("large")

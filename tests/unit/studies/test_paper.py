"""The papers' own recipes: they fit on GPUs like theirs by the planner, and their parts start."""

import json

import pytest

from manyface.config import Config, parse_config
from manyface.plan import Cluster, plan_for_gpus
from manyface.studies.catalog import studies_of
from manyface.studies.cells import Cell, Table
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.paper import DATA_SETS
from manyface.studies.scales import find_scale
from manyface.train.build import build_training

PEOPLE = {
    "ms1mv3": 93_431,
    "glint360k": 360_232,
    "wf4m": 205_990,
    "wf12m": 617_970,
    "wf42m": 2_059_906,
    "wf12m_conflict": 1_017_970,
    "wf12m_flip40": 617_970,
}
SCALE = find_scale("paper")
POOLS = studies_of(SCALE)["pool"].tables
TABLES = [table for study in studies_of(SCALE).values() for table in study.tables]


def job(table: Table, cell: Cell) -> Job:
    (found,) = [each for each in jobs_of(table, SCALE) if each.cell == cell]
    return found


def test_every_set_is_used() -> None:
    assert set(DATA_SETS) == set(PEOPLE) == {table.recipe for table in TABLES}


def test_a_recipe_on_two_sets_is_two_runs() -> None:
    runs = {}
    for table in TABLES:
        for cell in table.cells:
            found = job(table, cell)
            runs.setdefault(found.digest, set()).add(table.recipe)
    assert all(len(sets) == 1 for sets in runs.values())


@pytest.mark.parametrize(
    ("table", "margin"), list(zip(POOLS, ("arcface", "cosface") * 2, strict=True))
)
def test_pools_stand_beside_the_full_fc_of_their_set(table: Table, margin: str) -> None:
    """F2C's own repository counts 19 epochs of a loader that a third of its photos are of."""
    for cell in table.cells:
        config = job(table, cell).config
        assert config.head.weight_decay == config.optimizer.weight_decay or "F2C " in cell.name
        if "F2C" in cell.name:
            assert [each / 3 for each in config.schedule.milestones] == [8, 14, 17]
            assert (config.head.margin, config.head.m, config.head.scale) == ("cosface", 0.5, 32)
            assert config.optimizer.weight_decay == 1e-4
        else:
            assert config.head.margin == margin


def test_nets_are_those_of_the_authors_configurations() -> None:
    found = {
        cell.name.split(",")[0]: job(table, cell).config.backbone
        for study in studies_of(SCALE).values()
        for table in study.tables
        for cell in table.cells
    }
    options = {
        name: (net.drop_path, net.mask_ratio) for name, net in found.items() if "VIT" in name
    }
    assert options == {
        "VIT-T": (0.05, 0.0),
        "VIT-S": (0.05, 0.0),
        "VIT-B": (0.05, 0.05),
        "VIT-L": (0.05, 0.05),
    }


def with_few_faces(config: Config) -> Config:
    """The same training of a few synthetic people, four photos at a time."""
    table = config.model_dump(mode="json", exclude_defaults=True)
    sections = ("augmentation", "backbone", "head", "optimizer", "schedule")
    kept = {section: table.get(section, {}) for section in sections}
    text = "[data]\npath = 'synthetic'\n[data.synthetic]\nnum_identities = 40\n"
    words = [
        f"{section}.{key}={json.dumps(value)}"
        for section, keys in kept.items()
        for key, value in keys.items()
    ]
    if config.head.method == "f2c":
        words += ["pool.preset=official", "pool.ratio=0.5"]
    few = ["train.batch_size=4", "evaluation.num_pairs=20", "evaluation.num_identities=20"]
    return parse_config(text, [*words, *few])


def of_each_kind() -> dict[str, tuple[Table, Job]]:
    """A table and a job of each net, method, margin, rule and optimizer."""
    found = {}
    for table in TABLES:
        for cell in table.cells:
            config = job(table, cell).config
            head, net = config.head, config.backbone.name
            kind = f"{net} {head.method} {head.margin} {head.negatives} {config.optimizer.name}"
            found[kind] = table, job(table, cell)
    return found


KINDS = of_each_kind()


@pytest.mark.soak  # minutes for each, of the nets' own costs
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits(kind: str) -> None:
    table, one = KINDS[kind]
    people, gpus = PEOPLE[table.recipe], Cluster("h100", 64)
    plan = plan_for_gpus(one.config, identities=people, cluster=gpus)
    assert plan.bytes.peak < plan.available


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_starts(kind: str) -> None:
    _, one = KINDS[kind]
    training = build_training(with_few_faces(one.config), warn=lambda text: None)
    (batch,) = training.loader.batches(0, 1)
    training.method.begin_step()
    training.method.loss(batch).backward()
    training.method.clip_gradients()
    training.method.update(1.0)

"""The recipes of `manyface demo`."""

from pathlib import Path

import pytest

from manyface.base.errors import ConfigError
from manyface.cli.demo import demo_recipes, describe


def test_methods_differ_in_what_stands_for_the_centers(tmp_path: Path) -> None:
    full, partial, f2c = demo_recipes(tmp_path, ["data.synthetic.num_identities=100"])
    assert [each.head.method for each in (full, partial, f2c)] == ["full", "partial", "f2c"]
    assert f2c.pool.slots == 32  # half a batch fits
    for other in (partial, f2c):
        for section in ("data", "backbone", "optimizer", "schedule", "train", "evaluation"):
            assert getattr(other, section) == getattr(full, section)
    assert "all class centers" in describe(full)
    assert "32 of them" in describe(f2c)


def test_an_override_reaches_the_methods_that_read_it(tmp_path: Path) -> None:
    overrides = ["head.learning_rate=0.02", "pool.prefill=true", "head.m=0.2"]
    full, partial, f2c = demo_recipes(tmp_path, overrides)
    assert full.head.learning_rate == partial.head.learning_rate == 0.02
    assert f2c.pool.prefill
    assert {each.head.m for each in (full, partial, f2c)} == {0.2}
    assert demo_recipes(tmp_path, ["pool.ratio=0.5"])[2].pool.slots is None


@pytest.mark.parametrize("key", ["head.method=full", "head.sample_rate=0.3", "run.name=x"])
def test_what_the_demo_sets_itself_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=r"--set \S+: the demo sets it"):
        demo_recipes(tmp_path, [key])

"""What `evaluate` refuses before it reads any data; that it scores: tests/integration."""

import pytest

from manyface.base.errors import CheckpointError, ConfigError
from manyface.config import parse_config
from manyface.train.scoring import evaluate_run, find_checkpoint


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoints" / "step-00000012").mkdir(parents=True)
    (tmp_path / "config.toml").write_text(parse_config("", ["backbone.name=tiny"]).to_toml())
    return tmp_path


@pytest.mark.parametrize(
    "override",
    [
        "backbone.name=r18",
        "backbone.embedding_size=64",
        "backbone.weights=x.pt",
        "data.image_size=64",
        "head.scale=32",
        "train.ema=0.9",
        "augmentation.flip=0",
    ],
)
def test_keys_that_belong_to_the_trained_run(run, override):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key} was .*, is .*trained.*train a run of its own"):
        evaluate_run(run, overrides=[override])


def test_the_value_that_the_run_has_is_no_change(run):
    with pytest.raises(CheckpointError, match="MANIFEST"):  # gets as far as the checkpoint
        evaluate_run(run, overrides=["backbone.name=tiny", "evaluation.folds=5"])


@pytest.mark.parametrize("name", ["../../x", "/etc", ".", "", "step-00000013", "best", "12"])
def test_checkpoints_that_are_none(run, name):
    (run.parent / "x").mkdir(exist_ok=True)
    with pytest.raises(CheckpointError, match=r"no checkpoint .*there are last, step-00000012"):
        find_checkpoint(run, name)


def test_checkpoints(run):
    assert find_checkpoint(run, "last") == find_checkpoint(run, "step-00000012")

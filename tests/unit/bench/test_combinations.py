"""Trainings side by side, each in its process; what is wrong with one is said before any runs."""

import pytest

from manyface.base.errors import ConfigError
from manyface.bench import TrainingJob, TrainingOptions, compare_trainings
from manyface.config import parse_config

TINY = (
    "data.image_size=32",
    "data.synthetic.num_identities=40",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "train.batch_size=8",
)


def job(name: str, *overrides: str) -> TrainingJob:
    return TrainingJob(name, parse_config("", [*TINY, *overrides]), TrainingOptions(steps=1))


def test_one_runs_and_one_dies() -> None:
    told: list[tuple[str, str]] = []
    jobs = [job("good", "optimizer.fused=false"), job("bad", "train.batch_size=4000")]
    found = compare_trainings(jobs, report=lambda *said: told.append(said))
    assert list(found) == ["good", "bad"]
    assert found["good"]["images_per_second"] > 0
    settings = found["good"]["settings"]
    assert (settings["fused"], settings["channels_last"], settings["steps"]) == (False, True, 1)
    assert found["bad"]["error"].startswith("train.batch_size is 4000, but ")
    assert ("good", "done") in told
    assert told[-1] == ("bad", "died")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("backbone.name=r19", "unknown backbone 'r19'"),
        ("data.image_size=33", "image_size must be a multiple of 16"),
        ("run.device=cuda:99", "run.device is 'cuda:99'"),
    ],
)
def test_what_is_wrong_is_said_before_it_runs(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        job("wrong", override)

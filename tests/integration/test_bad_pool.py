"""A pool that cannot be had ends `manyface train` in one clear line, before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from manyface.cli import main

Train = Callable[..., tuple[int, list[str]]]
SMALL = [
    "data.image_size=32",
    "data.synthetic.num_identities=24",
    "data.synthetic.images_per_identity=3",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "head.method=f2c",
    "schedule.steps=2",
    "train.batch_size=8",
    "evaluation.num_pairs=40",
    "evaluation.num_identities=30",
    "evaluation.folds=2",
    "run.name=test",
]


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Run a small F2C training: exit code and the lines on stderr."""

    def call(*overrides: str, resume: bool = False) -> tuple[int, list[str]]:
        recipe = tmp_path / "small.toml"
        recipe.write_text("")
        words = ["train", str(recipe), "--quiet", *(["--resume"] if resume else [])]
        for override in [*SMALL, f"run.directory={tmp_path / 'runs'}", *overrides]:
            words += ["--set", override]
        code = main(words)
        return code, capsys.readouterr().err.splitlines()

    return call


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pool.slots=3"], ["3 slots", "half a batch (4 images", "pool.slots to 4", "batch_size"]),
        (["pool.ratio=0.01"], ["1 slots", "raise pool.ratio to 0.168"]),
        (["pool.slots=25"], ["pool.slots is 25", "24 people", "24 at most"]),
        (["pool.slots=1000000000000"], ["pool.slots is 1000000000000", "24 people"]),
        (["pool.slots=25", "head.method=virtual"], ["pool.slots is 25", "24 people"]),
        (["train.batch_size=1"], ["train.batch_size", "got 1", "at least 2"]),
        (["train.batch_size=2"], ["train.batch_size is 2", "two half batches", "4 or more"]),
        (["train.batch_size=9", "pool.ratio=0.5"], ["even number of images, got 9", "8 or 10"]),
    ],
)
def test_refused(train: Train, tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    code, lines = train(*overrides)
    assert code == 2, lines
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert not (tmp_path / "runs" / "test" / "config.toml").exists()


def test_the_ratio_that_is_advised_is_enough(train: Train) -> None:
    assert train("pool.ratio=0.168")[0] == 0


def test_a_small_pool_of_the_official_preset_trains(train: Train) -> None:
    assert train("pool.slots=2", "pool.preset=official") == (0, [])


def test_a_run_is_not_resumed_with_another_pool(train: Train, tmp_path: Path) -> None:
    assert train("pool.slots=8")[0] == 0
    for other, words in (
        ("pool.slots=9", "pool.slots was 8, is 9"),
        ("pool.ratio=0.5", "pool.ratio was None, is 0.5"),
        ("pool.features=2", "pool.slots was 8"),
    ):
        code, lines = train(other, resume=True)
        assert (code, len(lines)) == (2, 1), lines
        assert words in lines[0]
        assert f"resume with {tmp_path / 'runs' / 'test' / 'config.toml'}" in lines[0]
    assert train("pool.slots=8", resume=True)[0] == 0


def test_a_person_without_a_photo_is_nobody(train: Train, tmp_path: Path) -> None:
    for person in range(5):
        (tmp_path / "faces" / f"person {person}").mkdir(parents=True)
        for number in range(person and 3):  # person 0 has none
            name = tmp_path / "faces" / f"person {person}" / f"{number}.png"
            Image.new("RGB", (40, 40), (50 * person, 80 * number, 0)).save(name)
    place = f"data.path={tmp_path / 'faces'}"
    assert train(place, "pool.slots=4")[0] == 0
    code, lines = train(place, "pool.slots=5", "run.name=other")
    assert (code, len(lines)) == (2, 1)
    assert "the data have 4 people" in lines[0]

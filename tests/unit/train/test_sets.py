"""Recipes with several sets: what is built of them, trained, stopped and gone on with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manyface.base.errors import ConfigError, DataError
from manyface.checkpoint import load, newest
from manyface.config import Config, parse_config
from manyface.data import DualLoader, Loader, Mixture
from manyface.heads import FullFC, PartialFC, SeveralHeads
from manyface.observe.progress import SilentProgress
from manyface.train import Interrupted, StopFlag, train
from manyface.train.build import build_training
from manyface.train.build_data import build_source

OPTIONS = [
    "run.device=cpu", "data.image_size=32", "backbone.name=tiny", "backbone.embedding_size=16",
    "train.batch_size=10", "train.log_every=1", "schedule.steps=6", "schedule.warmup_steps=1",
    "head.scale=16",
]  # fmt: skip
SETS = {"one": ["Ann", "Bob", "Cyd"], "two": ["Bob", "Dan", "3", "Eve"], "three": ["Fay", "3"]}


def write(root: Path) -> Path:
    """Three sets of 3, 4 and 2 people with 2 to 4 photos."""
    for set_number, (name, people) in enumerate(SETS.items()):
        for number, person in enumerate(people):
            folder = root / name / person
            folder.mkdir(parents=True)
            for photo in range(2 + set_number):
                seed = 100 * set_number + 10 * number + photo
                pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
                image.save(folder / f"{photo}.png")
    return root


def recipe(root: Path, *overrides: str, heads: str = "ccc", weights: str = "") -> Config:
    kinds = {"c": "common", "o": "own"}
    text = ""
    for number, name in enumerate(SETS):
        text += f'[[data.sets]]\npath = "{root / name}"\nhead = "{kinds[heads[number]]}"\n'
        text += f"weight = {weights[number]}\n" if weights else ""
    return parse_config(text, [*OPTIONS, f"run.directory={root / 'runs'}", *overrides])


def built(config: Config, said: list[str] | None = None):
    return build_training(config, warn=(said if said is not None else []).append)


def test_one_head_over_the_people_of_all_sets(tmp_path):
    said: list[str] = []
    training = built(recipe(write(tmp_path)), said)
    assert isinstance(training.source, Mixture)
    assert isinstance(training.method.head, FullFC)
    assert training.method.head.num_classes == training.source.num_identities == 9
    assert "1 people have the same name in several of data.sets (first: 'Bob')" in said[0]
    assert training.loader.steps_per_epoch == (6 + 12 + 8) / 10
    seen = np.concatenate([batch.labels.numpy() for batch in training.loader.batches(0, 13)])
    assert np.bincount(seen, minlength=9)[:3].sum() == 30  # of 130: five epochs


def test_weights_are_shares_of_every_batch(tmp_path):
    training = built(recipe(write(tmp_path), weights="532"))
    for batch in training.loader.batches(0, 20):
        sets = np.searchsorted([3, 7], batch.labels.numpy(), side="right")
        assert np.bincount(sets, minlength=3).tolist() == [5, 3, 2]


def test_sets_with_heads_of_their_own_come_behind_the_common_ones(tmp_path):
    said: list[str] = []
    config = recipe(write(tmp_path), "head.sample_rate=0.5", heads="coc")
    training = built(config, said)
    head = training.method.head
    assert isinstance(head, SeveralHeads)
    assert [type(each) for each in head.heads] == [PartialFC, PartialFC]
    assert head.first_labels == [0, 5, 9]
    assert head.heads[0].seed != head.heads[1].seed
    names = [*SETS["one"], *sorted(SETS["three"]), *sorted(SETS["two"])]
    assert list(training.source.identity_names) == names
    assert not said
    alone = built(recipe(tmp_path, heads="ooo", weights="111")).method.head
    assert alone.first_labels == [0, 3, 7, 9]


def test_balanced_heads_know_the_images_of_their_own_people(tmp_path):
    options = ["head.sample_rate=0.5", "head.sampler=balanced"]
    head = built(recipe(write(tmp_path), *options, heads="ooo")).method.head
    assert [len(each.sampler._table._alias) for each in head.heads] == [3, 4, 2]


def test_f2c_takes_several_sets_by_their_weights(tmp_path):
    options = ["head.method=f2c", "pool.ratio=1.0", "train.batch_size=20"]
    training = built(recipe(write(tmp_path), *options, weights="622"))
    assert isinstance(training.loader, DualLoader)
    found = np.concatenate(
        [np.searchsorted([3, 7], b.labels.numpy(), side="right")
         for b in training.loader.batches(0, 10)]
    )  # fmt: skip
    assert np.bincount(found).tolist() == pytest.approx([120, 40, 40], abs=4)


def test_blocks_within_each_set(tmp_path):
    options = ["data.shuffle=block", "data.block_size=2", "data.shuffle_window=2"]
    loader = built(recipe(write(tmp_path), *options)).loader
    assert isinstance(loader, Loader)
    found = np.concatenate([batch.labels.numpy() for batch in loader.batches(0, 13)])
    assert np.bincount(found).tolist() == [10] * 3 + [15] * 4 + [20] * 2


def test_what_cannot_be(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"data\.sets\.path: no such data"):
        build_source(recipe(tmp_path / "nowhere"), warn=print)
    for image in (tmp_path / "three" / "3").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="one person only"):
        built(recipe(tmp_path, heads="cco"))
    with pytest.raises(ConfigError, match=r"head\.weights is for one head"):
        built(recipe(tmp_path, "head.weights=x.pt", heads="coc"))


def stopping_after(step: int, stop: StopFlag):
    class Display(SilentProgress):
        def update(self, snapshot):
            if snapshot.step == step:
                stop.request()

    return lambda name, *, num_steps: Display()


@pytest.mark.parametrize("heads", ["ccc", "coo"])
def test_stopped_moved_and_resumed_equals_uninterrupted(tmp_path, heads):
    options = ["head.sample_rate=0.6", "data.shuffle=block", "data.block_size=2"]
    write(tmp_path)
    whole = recipe(tmp_path, *options, "run.name=whole", heads=heads, weights="212")
    parts = recipe(tmp_path, *options, "run.name=parts", heads=heads, weights="212")
    train(whole, progress=lambda name, *, num_steps: SilentProgress())
    stop = StopFlag()
    with pytest.raises(Interrupted):
        train(parts, progress=stopping_after(3, stop), stop=stop)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in SETS:
        (tmp_path / name).rename(moved / name)
    parts = recipe(
        moved, *options, "run.name=parts", f"run.directory={tmp_path / 'runs'}",
        heads=heads, weights="212",
    )  # fmt: skip
    train(parts, resume=True, progress=lambda name, *, num_steps: SilentProgress())
    first, second = (load(newest(run.run_directory / "checkpoints")) for run in (whole, parts))
    assert first.step == second.step == 6
    for group, members in first.tensors.items():
        for name, tensor in members.items():
            assert torch.equal(tensor, second.tensors[group][name]), f"{group}: {name}"
    other = recipe(
        moved, *options, "run.name=parts", f"run.directory={tmp_path / 'runs'}",
        heads=heads, weights="213",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"data\.sets\.2\.weight was 2\.0, is 3\.0"):
        train(other, resume=True)

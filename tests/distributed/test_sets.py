"""Whole runs on several sets, read by blocks, with a keep-list and heads of their own: stopped and
gone on with, with other ranks and workers, they see what they would have seen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import on_ranks
from test_training import end, losses, run

from manyface.data.records import open_records
from manyface.data.records.kept import write_keep_list
from manyface.data.records.shards import ShardWriter
from manyface.data.synthetic import SyntheticFaces
from manyface.parallel import Ranks
from manyface.train.build_data import build_loader, build_source

PEOPLE = (7, 9, 5)
OVERRIDES = [
    *("data.shuffle=block", "data.block_size=3", "data.shuffle_window=2"),
    *("head.sample_rate=0.6", "evaluation.every_steps=0", "train.batch_size=8"),
]


@pytest.fixture
def sets(tmp_path: Path) -> str:
    """Three sets of shards, in no order of people; of the second two photos are left out."""
    import simplejpeg

    for number, count in enumerate(PEOPLE):
        faces = SyntheticFaces(
            num_identities=count, images_per_identity=4, image_size=32, seed=number
        )
        names = [f"{number}-{person}" for person in range(count)]
        writer = ShardWriter(tmp_path / f"set{number}", identity_names=names, max_bytes=40_000)
        for place in range(4 * count):
            record = place * 5 % (4 * count)
            (pixels,) = faces.load(torch.tensor([record]).numpy()).numpy()
            image = simplejpeg.encode_jpeg(pixels, quality=95)
            writer.add(image, person=record // 4, name=f"{record}.jpg")
        writer.finish()
    records = open_records(tmp_path / "set1")
    write_keep_list(tmp_path / "keep", records, [3, 17])
    return f"""
[[data.sets]]
path = "{tmp_path}/set0"
weight = 2
[[data.sets]]
path = "{tmp_path}/set1"
keep = "{tmp_path}/keep"
weight = 3
head = "own"
[[data.sets]]
path = "{tmp_path}/set2"
weight = 1
"""


def without_last(sets: str) -> str:
    return sets.rpartition("[[data.sets]]")[0]


def trained(folder: Path, sets: str, stop_after: int = 0, resume: Any = False) -> str:
    return run(folder, OVERRIDES, stop_after, recipe=sets, resume=resume)


def labels_from(sets: str, workers: int, start: int) -> list[list[int]]:
    """This rank's labels of five steps, as a run makes its batches."""
    from manyface.config import parse_config
    from manyface.train import build_data

    build_data.loader_workers = lambda: workers  # a fork of its own
    config = parse_config(sets, ["data.image_size=32", "run.device=cpu", *OVERRIDES])
    loader = build_loader(config, build_source(config, warn=print), None)
    assert loader.prefetch == workers + 1
    return [batch.labels.tolist() for batch in loader.batches(start, start + 5)]


def test_batches_of_a_recipe_are_the_same_for_any_ranks_and_workers(
    sets: str,
) -> None:
    (whole,) = on_ranks(labels_from, 1, sets, 1, 0)
    for size, workers, start in ((2, 3, 0), (3, 2, 2), (1, 4, 4)):
        found = on_ranks(labels_from, size, sets, workers, start)
        together = [
            [label for part in parts for label in part] for parts in zip(*found, strict=True)
        ]
        assert together[: 5 - start] == whole[start:]


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, sets: str) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert on_ranks(trained, 2, whole, sets) == ["done"] * 2
    stopped = on_ranks(trained, 2, parts, sets, 4)
    assert all("stopped by SIGTERM: saved" in text for text in stopped), stopped
    assert on_ranks(trained, 2, parts, sets, 0, True) == ["done"] * 2
    assert losses(whole) == losses(parts)
    one, other = end(whole), end(parts)
    assert one.keys() == other.keys()
    assert {name.split(".")[1] for name in one if name.startswith("head: heads")} == {"0", "1"}
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_goes_on_with_other_numbers_of_ranks(tmp_path: Path, sets: str) -> None:
    """More ranks than one of the heads has rows for is no matter either."""
    for size, stop in ((3, 2), (1, 4), (4, 6), (2, 0)):
        found = on_ranks(trained, size, tmp_path, sets, stop, "if-there")
        assert all(("saved" in text) if stop else (text == "done") for text in found), found
    assert len(losses(tmp_path)) == 8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("weight = 3", "weight = 4"), "data.sets.1.weight was 3"),
        (lambda text: text.replace('head = "own"', 'head = "common"'), "sets.1.head was 'own'"),
        (lambda text: text.replace("set0", "set9").replace("set2", "set0").replace("set9", "set2"),
         "the data has changed"),
        (without_last, "data.sets.2.head was 'common', is None"),
        (lambda text: text.replace("/keep", "/other"), "data.sets.1.keep was"),
    ],
)  # fmt: skip
def test_other_sets_are_not_gone_on_with(tmp_path: Path, sets: str, change: Any, says: str) -> None:
    assert all("saved" in text for text in on_ranks(trained, 1, tmp_path, sets, 2))
    before = end(tmp_path)
    found = on_ranks(trained, 2, tmp_path, change(sets), 0, True)
    assert all(says in text for text in found), found
    assert end(tmp_path).keys() == before.keys()


def test_ranks_with_other_sets_are_told(tmp_path: Path, sets: str) -> None:
    found = on_ranks(run_with_fewer_sets_on_the_first, 2, tmp_path, sets)
    assert all("rank 1 has another recipe than rank 0: data.sets.2" in text for text in found)
    assert not (tmp_path / "run").exists()


def run_with_fewer_sets_on_the_first(folder: Path, sets: str) -> str:
    return trained(folder, sets if Ranks().rank else without_last(sets))

"""Steps of trainings are those of train/; their seconds are divided where the parts meet."""

from pathlib import Path

import numpy as np
import pytest
import torch

from manyface.base.errors import ConfigError, DataError
from manyface.bench import room
from manyface.bench.parts import PARTS, Stopwatch, watched
from manyface.bench.pictures import DISTINCT, JpegRecords
from manyface.bench.room import activation_bytes
from manyface.bench.training import (
    MadeBefore,
    TrainingOptions,
    fill_pool,
    measure_training,
    shares,
    training_source,
)
from manyface.checkpoint import RowShard
from manyface.config import Config, parse_config
from manyface.data import DualLoader, Loader
from manyface.train.build_data import build_loader
from manyface.train.build_model import build_method
from manyface.train.method import Classification, PoolTraining
from manyface.train.state import tensors_of
from manyface.train.step import FiniteGuard, train_step

CPU = torch.device("cpu")
TINY = (
    "data.image_size=32",
    "data.synthetic.num_identities=40",
    "data.synthetic.images_per_identity=2",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "train.batch_size=8",
    "run.precision=fp32",
)
HEADS = {
    "full": [],
    "partial": ["head.sample_rate=0.5"],
    "f2c": ["head.method=f2c", "pool.ratio=0.5"],
    "virtual": ["head.method=virtual", "pool.ratio=0.5"],
    "balanced": ["head.method=partial", "head.sampler=balanced", "head.sample_rate=0.5"],
    "accumulation": ["optimizer.accumulation=2", "train.ema=0.9"],
}


def tiny(*overrides: str) -> Config:
    return parse_config("", [*TINY, *overrides])


def silent(text: str) -> None:
    pass


@pytest.mark.parametrize("loader", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_all_figures_are_there(head: str, loader: bool) -> None:
    options = TrainingOptions(loader=loader, steps=2)
    told: list[str] = []
    found = measure_training(tiny(*HEADS[head]), options, report=told.append)
    assert told[:2] == ["building", "the loader alone"]
    assert [text for text in told if text.startswith("step")] == [f"step {k}" for k in (1, 2, 3, 4)]
    assert found["fits"] is True
    assert found["num_identities"] == 40
    assert found["images"] == (16 if head == "accumulation" else 8)
    median = found["step_seconds"]["median"]
    assert found["images_per_second"] == pytest.approx(found["images"] / median)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert list(found["shares"]) == list(PARTS)
    assert (found["shares"]["rows"] > 0) == (head != "f2c")
    assert min(found["shares"][part] for part in PARTS[:-1]) > 0
    assert found["loader"]["on"] is loader
    assert found["loader"]["seconds_per_image"].keys() == {"decode", "augmentation"}
    assert min(found["loader"]["seconds_per_image"].values()) > 0
    assert found["precision"] == "fp32"
    assert found["peak_device_bytes"] is None


def test_on_an_accelerator_speed_and_shares_are_of_different_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device that is none: borders are waited for, in half of the steps at all borders."""
    waits: list[object] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waits.append)
    watch = Stopwatch(torch.device("cuda"))
    watch.splits = False
    watch.start("loader")
    watch.switch("head")
    assert list(watch.stop()) == ["loader"]
    assert waits == [torch.device("cuda")] * 2
    watch.splits = True
    watch.start("loader")
    watch.switch("head")
    assert list(watch.stop()) == ["loader", "head"]
    assert len(waits) == 5


class Noted(Stopwatch):
    """Says which parts it was switched to."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.order: list[str] = []

    def switch(self, part: str) -> None:
        super().switch(part)
        self.order.append(part)


def built(config: Config) -> tuple[Classification | PoolTraining, Loader | DualLoader]:
    source = training_source(config, warn=silent)
    method = build_method(config, source.num_identities, device=CPU, autocast=None)
    return method, build_loader(config, source, method)


def steps_of(config: Config, watch: Stopwatch | None, count: int = 2) -> dict[str, object]:
    """State after some steps, watched or not."""
    method, loader = built(config)
    guard, each = FiniteGuard(CPU), config.optimizer.accumulation
    batches = list(loader.batches(0, count * each))

    def run() -> None:
        for step in range(count):
            mine = batches[step * each : (step + 1) * each]
            train_step(method, mine, step=step, factor=0.1, seed=0, guard=guard)

    if watch is None:
        run()
    else:
        watch.start("loader")
        with watched(method, watch):
            run()
    found = tensors_of(method)
    return {n: each.values if isinstance(each, RowShard) else each for n, each in found.items()}


FORWARD_BACKWARD = ["loader", "backbone", "head", "backbone"]


@pytest.mark.parametrize(
    ("head", "order"),
    [
        ("full", [*FORWARD_BACKWARD, "update", "rows", "update"]),
        ("partial", [*FORWARD_BACKWARD, "update", "rows", "update"]),
        ("virtual", [*FORWARD_BACKWARD, "update", "rows", "update"]),
        ("accumulation", [*FORWARD_BACKWARD * 2, "update", "rows", "update"]),
        # Two passes of a probe and a gallery, then the backward of two probes.
        ("f2c", ["loader", *["backbone", "head"] * 4, "backbone", "backbone", "update"]),
    ],
)
def test_parts_follow_each_other_and_change_nothing(head: str, order: list[str]) -> None:
    config, watch = tiny(*HEADS[head]), Noted()
    torch.testing.assert_close(steps_of(config, watch), steps_of(config, None), rtol=0, atol=0)
    assert watch.order == order * 2


def test_a_compiled_net_is_watched_around_its_graph() -> None:
    method, loader = built(tiny())
    method.net.compile(backend="eager")
    watch, batch = Noted(), loader.batch(0)
    compiled = method.net._compiled_call_impl
    with watched(method, watch):
        train_step(method, [batch], step=0, factor=0.1, seed=0, guard=FiniteGuard(CPU))
        assert "forward" not in vars(method.net)
    assert watch.order[:4] == FORWARD_BACKWARD
    assert method.net._compiled_call_impl is compiled


def test_afterwards_nothing_is_watched() -> None:
    method, _ = built(tiny(*HEADS["f2c"]))
    with watched(method, Noted()):
        assert "loss" in vars(method)
    assert "loss" not in vars(method)
    assert not any("forward" in vars(net) for net in (method.net, method.f2c.gallery_net))


def test_shares_are_of_all_steps() -> None:
    steps = [{"loader": 1.0, "head": 1.0}, {"backbone": 5.0, "rows": 1.0}]
    expected = {"loader": 0.125, "backbone": 0.625, "head": 0.125, "update": 0.0, "rows": 0.125}
    assert shares(steps) == expected


def test_without_the_loader_labels_and_plans_are_its_own() -> None:
    _, loader = built(tiny(*HEADS["f2c"]))
    made, own = MadeBefore(loader, 3), list(loader.batches(0, 3))
    batches = list(made.batches(0, 3))
    assert [batch.labels.tolist() for batch in batches] == [each.labels.tolist() for each in own]
    assert [batch.plan.number for batch in batches] == [each.plan.number for each in own]
    assert all(batch.images is batches[0].images for batch in batches)


def test_the_pool_is_full_before_the_first_step() -> None:
    method, _ = built(tiny(*HEADS["f2c"]))
    assert isinstance(method, PoolTraining)
    fill_pool(method.f2c)
    plan = method.f2c.planner().plan(np.arange(4), np.arange(4))
    assert all(each.num_filled == method.f2c.pool.num_slots == 20 for each in plan.passes)


def test_pictures_are_decoded_each_time() -> None:
    source = training_source(tiny("data.synthetic.num_identities=1000"), warn=silent)
    assert (len(source), source.num_identities) == (2000, 1000)
    assert source._cache is None  # type: ignore[attr-defined]
    images = source.load(np.array([0, 1, DISTINCT, 1999]))
    assert images.shape == (4, 32, 32, 3)
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
    assert source.labels(np.array([0, 1, 2, 1999])).tolist() == [0, 0, 1, 999]
    assert images.float().std() > 10  # a face, not a grey replacement


def test_pictures_have_no_lists() -> None:
    records = JpegRecords(10, 2, image_size=16)
    assert records.read(0)[:2] == b"\xff\xd8"
    with pytest.raises(DataError, match=r"JPEG records in memory have no people\.txt"):
        records.read_text("people.txt")


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_activations_grow_with_the_batch_and_weights_do_not(autocast: torch.dtype | None) -> None:
    config = tiny("train.batch_size=12")
    method = build_method(config, 40, device=CPU, autocast=autocast)
    counted = activation_bytes(method, config)
    assert counted == room._saved_bytes(method, 12, 32)


@pytest.mark.parametrize("free", [1000, 300 * 2**20])
def test_what_cannot_fit_is_not_run(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: free)
    monkeypatch.setattr(room, "resident_bytes", lambda: 0)
    large = ["train.batch_size=4000", "data.synthetic.num_identities=2000"]
    config = tiny() if free == 1000 else tiny(*large)
    found = measure_training(config, TrainingOptions(), report=silent)
    assert found.keys() == {"fits", "needed_bytes", "available_bytes"}
    assert found["fits"] is False
    assert found["needed_bytes"] > found["available_bytes"] == free
    if free == 1000:
        assert found["needed_bytes"] == 2 * 40 * 16 * 4


def test_options_that_nothing_can_be_measured_with() -> None:
    with pytest.raises(ConfigError, match="steps must be at least 1, got 0"):
        TrainingOptions(steps=0)


@pytest.mark.parametrize(
    ("overrides", "copies", "number_bytes"),
    [
        ([], 2, 4),
        (["head.momentum=0"], 1, 4),
        (["head.dtype=bfloat16"], 2, 2),
        (["head.sub_centers=3"], 6, 4),
        (["head.optimizer=adamw"], 2, 4),
        (["head.method=f2c"], 0, 4),
    ],
)
def test_bytes_of_class_centers(overrides: list[str], copies: int, number_bytes: int) -> None:
    assert room.center_bytes(tiny(*overrides), 100) == copies * 100 * 16 * number_bytes


def test_class_centers_in_files_take_no_memory(tmp_path: Path) -> None:
    folder = f"head.placement_folder={tmp_path}"
    assert room.center_bytes(tiny("head.placement=file", folder), 100) == 0

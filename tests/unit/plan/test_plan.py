"""The planner: what it counts is what is there, and it says what to change."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipe import recipe

from manyface.base.errors import DataError
from manyface.config import Config
from manyface.heads import FullFC
from manyface.margins import CosFace
from manyface.plan import Cluster, Prediction, advice, plan_for_gpus, plan_here
from manyface.plan.head import active_rows, head_costs
from manyface.plan.live import live_bytes
from manyface.plan.measuring import changed
from manyface.plan.prediction import Bytes, Line, Seconds
from manyface.plan.saving import Saving

CPU = torch.device("cpu")


def quiet(text: str) -> None:
    pass


def test_bytes_alive_at_once() -> None:
    old = torch.zeros(1000)

    def run() -> None:
        first = old + 1  # 4000 bytes
        del first
        second = old * 2  # in its place
        view = second[:10]
        view.add_(1)
        third = second + old[0]
        del second, third

    assert live_bytes(run) == 8004 or live_bytes(run) == 8000


def test_what_gets_the_address_of_a_freed_tensor_counts() -> None:
    old = [torch.zeros(10) for _ in range(50)]

    def run() -> None:
        for tensor in old:
            tensor.add_(1)  # so that they are known as older
        del tensor
        old.clear()
        new = [torch.zeros(1000) for _ in range(50)]
        new.clear()

    assert live_bytes(run) == 50 * 4000


def test_a_line_never_falls() -> None:
    assert Line.through((1, 10), (3, 30)).at(5) == 50
    assert Line.through((1, 10), (3, 4)) == Line(4.0, 0.0)
    assert Line.through((2, 7), (2, 9)) == Line(9.0, 0.0)


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ({}, 300),
        ({"sample_rate": 0.1}, 30),
        ({"sample_rate": 0.01}, 8),
        ({"method": "f2c"}, 30),
    ],
)
def test_rows_that_a_step_scores(head: dict[str, object], rows: int) -> None:
    assert active_rows(recipe(**head), 300, batch_size=8) == rows


@pytest.mark.parametrize("head", [{}, {"sample_rate": 0.1, "dtype": "bfloat16", "momentum": 0}])
def test_bytes_of_many_classes_are_those_of_the_real_head(
    head: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyface.plan.head._LEAST_ROWS", 500)  # so that a copy is measured
    found = head_costs(recipe(**head), 40_000, batch_size=8, device=CPU, timed=False)
    itemsize, momentum = (2, 0) if head else (4, 1)
    assert found.rows == 40_000 * 16 * itemsize
    assert found.state == momentum * found.rows
    assert found.active == (4_000 if head else 40_000)


@pytest.mark.parametrize("identities", [40_000, 40_001])
def test_bytes_of_a_large_pool_are_those_of_the_real_one(
    identities: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyface.plan.head._LEAST_ROWS", 500)
    found = head_costs(recipe(method="f2c"), identities, batch_size=8, device=CPU, timed=False)
    assert found.active == 4_000
    assert found.rows == pytest.approx(4_000 * 16 * 4)
    assert found.state == 4 * identities + 34 * 4_000


def test_state_of_other_optimizers_is_counted() -> None:
    config = recipe(optimizer="adamw", row_wise_second_moment=True)
    found = head_costs(config, 300, batch_size=8, device=CPU, timed=False)
    assert found.state == 300 * (16 * 4 + 4 + 4)


def test_lists_of_hard_negatives_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyface.plan.head.seconds_of", lambda run, **_: run() or 1.0)
    monkeypatch.setattr("manyface.plan.head._LISTED", 500)  # so that a copy is measured
    monkeypatch.setattr("manyface.plan.head._MOST_ROWS", 500)
    config = recipe(method="partial", sample_rate=0.1, sampler="hard", hard_refresh_steps=10)

    def seconds_and_lists(identities: int) -> tuple[float, float]:
        found = head_costs(config, identities, batch_size=8, device=CPU, timed=True)
        assert found.lists is not None
        assert found.seconds is not None
        assert found.lists.seconds is not None
        assert found.lists.held == 4 * 10 * identities
        return found.seconds, found.lists.seconds

    (head, lists), (head_of_twice, lists_of_twice) = map(seconds_and_lists, (40_000, 80_000))
    assert lists == 40_000 / 10 / 500 * 40_000 / 500  # the copy makes 500 lists among 500
    assert lists_of_twice == 4 * lists
    assert head_of_twice == pytest.approx(2 * head)


def test_lists_of_hard_negatives_on_gpus() -> None:
    config = recipe(method="partial", sample_rate=0.1, sampler="hard", sub_centers=2)
    one = plan_for_gpus(config, identities=1000, cluster=Cluster("h100", 1)).seconds
    two = plan_for_gpus(config, identities=2000, cluster=Cluster("h100", 1)).seconds
    assert one.lists == pytest.approx(2 * (2 * 1000) ** 2 * 16 / 1000 / (0.5 * 67e12))
    assert two.lists == pytest.approx(4 * one.lists)
    assert two.step > two.lists


def test_every_center_of_a_class_counts() -> None:
    one, three = (
        plan_for_gpus(recipe(sub_centers=n), identities=9000, cluster=Cluster("h100", 1))
        for n in (1, 3)
    )
    assert three.seconds.head == pytest.approx(3 * one.seconds.head)


def test_bytes_of_a_step_are_those_of_a_full_copy() -> None:
    config = recipe()
    planned = head_costs(config, 300, batch_size=8, device=CPU, timed=False).stepping
    head = FullFC(num_classes=300, dim=16, margin=CosFace(0.4))
    embeddings, labels = torch.randn(8, 16, requires_grad=True), torch.arange(8)

    def step() -> None:
        embeddings.grad = None
        head(embeddings, labels).backward()
        head.step(0.0)

    step()
    assert planned == pytest.approx(live_bytes(step), rel=0.05)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"sample_rate": 0.1, "missed_steps": "lazy-exact"},
        {"method": "f2c"},
        {"method": "virtual"},
    ],
)
def test_every_method_has_a_plan(head: dict[str, object]) -> None:
    found = plan_here(recipe(**head), identities=None, report=quiet)
    assert found.identities == 300
    assert found.seconds.backbone > 0
    assert found.seconds.head > 0
    assert found.fits
    assert found.bytes.peak > found.bytes.process + found.bytes.activations
    assert found.as_dict()["images_per_second"] > 0


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_odd_batches(batch: int) -> None:
    config = changed(recipe(sample_rate=0.1), "train", batch_size=batch)
    found = plan_here(config, identities=None, report=quiet)
    assert found.batch_size == batch
    assert found.seconds.step > 0


@pytest.mark.parametrize("head", [{}, {"sample_rate": 0.5}])
def test_bytes_of_a_large_batch_lie_on_a_line(head: dict[str, object]) -> None:
    def stepping(*, timed: bool) -> int:
        config = recipe(**head)
        return head_costs(config, 40_000, batch_size=2048, device=CPU, timed=timed).stepping

    assert stepping(timed=False) == pytest.approx(stepping(timed=True), rel=0.05)


def test_a_global_batch_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = torch.randn

    def noted(*size: int, **options: Any) -> torch.Tensor:
        drawn.extend(size[:1])
        return real(*size, **options)

    monkeypatch.setattr(torch, "randn", noted)
    config = changed(recipe(), "train", batch_size=8 * 1024)
    found = plan_for_gpus(config, identities=300, cluster=Cluster("h100", 8))
    assert found.bytes.head > 8 * 1024 * 16 * 4  # the embeddings' gradients alone
    assert max(drawn) <= 512


def test_data_that_are_not_here(tmp_path: Path) -> None:
    config = changed(recipe(), "data", path=str(tmp_path / "none"))
    with pytest.raises(DataError):
        plan_here(config, identities=None, report=quiet)
    found = plan_here(config, identities=500, report=quiet)
    assert (found.identities, found.seconds.loader, found.steps) == (500, None, None)


def test_files_are_no_memory(tmp_path: Path) -> None:
    there = recipe(placement="file", placement_folder=str(tmp_path / "rows"))
    found = plan_here(there, identities=None, report=quiet)
    assert found.bytes.rows == found.bytes.state == 0
    assert found.bytes.files == 2 * 300 * 16 * 4
    assert not (tmp_path / "rows").exists()  # nothing of it is made


def test_files_that_the_disk_cannot_hold(tmp_path: Path) -> None:
    there = recipe(placement="file", placement_folder=str(tmp_path / "rows"), sample_rate=0.0)
    found = plan_here(there, identities=10**13, report=quiet, timed=False)
    assert found.disk == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert found.bytes.files > found.disk
    assert not found.fits
    small = plan_here(there, identities=300, report=quiet, timed=False)
    assert small.fits


def test_host_memory_is_not_the_gpus(tmp_path: Path) -> None:
    def plan(**head: object) -> Prediction:
        return plan_for_gpus(recipe(**head), identities=1000, cluster=Cluster("h100", 2))

    on_gpu, on_host = plan(), plan(placement="host")
    assert on_gpu.host is not None
    assert on_host.host is not None
    assert on_gpu.bytes.loader == on_gpu.host.rows == on_gpu.seconds.transfer == 0
    assert on_gpu.host.loader > 0
    assert on_host.bytes.rows == on_host.bytes.state == 0
    assert on_host.host.rows == on_host.host.state == on_gpu.bytes.rows == 500 * 16 * 4
    assert on_host.seconds.transfer == pytest.approx(2 * 2 * 500 * 16 * 4 / (0.7 * 64e9))
    in_files = plan(placement="file", placement_folder=str(tmp_path), sample_rate=0.5)
    assert in_files.host is not None
    assert in_files.host.rows == 0
    assert in_files.seconds.transfer == pytest.approx(2 * 2 * 250 * 16 * 4 / (0.7 * 64e9))
    staged = 2 * 2 * 250 * 16 * 4  # of this step and of the next one, with momentum
    assert in_files.bytes.head == plan(sample_rate=0.5).bytes.head + staged


def test_host_memory_that_is_known_must_suffice() -> None:
    assert prediction(host=Bytes(loader=500)).fits
    assert not prediction(host=Bytes(loader=500), host_available=400).fits


def prediction(**changes: object) -> Prediction:
    found = Prediction(
        method="partial",
        identities=1000,
        active=100,
        batch_size=8,
        ranks=1,
        bytes=Bytes(100, 10, 1000, 1000, 10, 10, 10),
        seconds=Seconds(1.0, 0.01, None, 0.0),
        available=10_000,
        where="here",
        steps=None,
        head_of_all=0.02,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def test_it_says_when_sampling_does_not_pay() -> None:
    config = recipe(sample_rate=0.1)
    (said,) = advice(config, prediction(), lambda other: prediction())
    assert said.startswith("sampling does not pay")
    slow = prediction(seconds=Seconds(1.0, 1.0, None, 0.0), head_of_all=10.0)
    assert advice(config, slow, lambda other: slow) == []


def test_it_says_when_sampling_would_pay() -> None:
    slow = prediction(method="full", seconds=Seconds(1.0, 9.0, None, 0.0), head_of_all=None)
    (said,) = advice(recipe(), slow, lambda other: slow)
    assert "90 % of a step" in said
    assert "81 % shorter" in said


def test_it_says_when_the_disk_is_waited_for() -> None:
    in_files = Bytes(100, 10, 0, 0, 10, 10, 10, files=9_000)
    roomy = prediction(bytes=in_files, head_of_all=None, disk=10_000)
    assert advice(recipe(), roomy, lambda other: roomy) == []
    (said,) = advice(recipe(), replace(roomy, available=5_000), lambda other: roomy)
    assert "waits for the disk" in said


def test_it_says_what_would_fit() -> None:
    def replan(other: Config) -> Prediction:
        halved = other.head.dtype == "bfloat16"
        return prediction(available=3000 if halved else 100)

    (said,) = advice(recipe(), prediction(available=100), replan)
    assert said.startswith("it would fit with any one of these: head.dtype=bfloat16 needs")


def test_it_warns_of_centers_that_are_thrown_far() -> None:
    fast = changed(recipe(), "head", learning_rate=0.1)
    (said,) = advice(fast, prediction(head_of_all=None), lambda other: prediction())
    assert "set head.learning_rate to about 2e-05" in said


def test_a_pool_is_advised_whatever_the_recipe_says_of_centers() -> None:
    def replan(other: Config) -> Prediction:
        return prediction(available=3000 if other.head.method == "f2c" else 100)

    sampled = recipe(sample_rate=0.1, dtype="bfloat16", momentum=0.5)
    (said,) = advice(sampled, prediction(available=100), replan)
    assert "head.method=f2c needs" in said


def test_it_says_nothing_that_is_no_recipe() -> None:
    def replan(other: Config) -> Prediction:
        return prediction(available=3000 if other.head.method == "f2c" else 100)

    (said,) = advice(recipe(), prediction(available=100), replan)
    assert "head.method=f2c needs" in said
    (said,) = advice(recipe(label_smoothing=0.1), prediction(available=100), replan)
    assert "f2c" not in said


def test_it_says_which_batch_fits() -> None:
    def replan(other: Config) -> Prediction:
        size = other.train.batch_size
        return prediction(bytes=Bytes(100, 10, 100, 100, activations=100 * size), available=700)

    found = replan(recipe())
    (said,) = advice(recipe(), found, replan)
    assert said == "it would fit with any one of these: train.batch_size=2 needs 0.0 GiB"
    assert (
        "train.batch_size=38"
        in advice(
            changed(recipe(), "train", batch_size=60),
            prediction(bytes=Bytes(activations=6000), available=4000),
            lambda other: prediction(
                bytes=Bytes(activations=100 * other.train.batch_size), available=4000
            ),
        )[0]
    )


@pytest.mark.parametrize("method", ["full", "f2c"])
def test_it_says_what_is_in_the_way(method: str) -> None:
    rows = prediction(bytes=Bytes(100, 10, 1000, 1000, 10), available=600)
    config = recipe(method=method)
    (here,) = advice(config, rows, lambda other: rows)
    assert "no single change makes it fit: the largest part is centers or features" in here
    assert "GPUs" not in here
    assert "F2C" not in here
    (there,) = advice(config, rows, lambda other: rows, fewest=lambda other: 5)
    assert there == "it would fit with any one of these: --gpus 5"
    (there,) = advice(config, rows, lambda other: rows, fewest=lambda other: None)
    assert there == here


def test_it_says_with_which_change_fewer_gpus_are_enough() -> None:
    rows = prediction(bytes=Bytes(100, 10, 1000, 1000, 10), available=600)

    def fewest(other: Config) -> int:
        halved, momentum = other.head.dtype == "bfloat16", other.head.momentum
        return 40 if not halved else 20 if momentum else 10

    (said,) = advice(recipe(), rows, lambda other: rows, fewest=fewest)
    wanted = "--gpus 40; --gpus 10 with head.dtype=bfloat16 and head.momentum=0"
    assert said == f"it would fit with any one of these: {wanted}"


def test_it_says_when_training_waits_for_checkpoints() -> None:
    saving = Saving(2**34, 2**36, 2**33, 700.0, False, 700.0, 1410)
    found = prediction(saving=saving, head_of_all=None)
    waits, long = advice(recipe(), found, lambda other: found)
    assert "16.0 GiB, host memory has 8.0 GiB for it: training waits 700 s" in waits
    assert "written for 12 minutes: train.checkpoint_minutes=10 is shorter" in long
    staged = replace(found, saving=replace(saving, is_staged=True, seconds=500.0))
    assert advice(recipe(), staged, lambda other: staged) == []


def test_it_says_when_the_disk_is_in_the_way() -> None:
    full = prediction(bytes=Bytes(files=2**40), disk=2**30)
    (said,) = advice(recipe(), full, lambda other: full)
    assert "files need 1024.0 GiB, the disk has 1.0 GiB" in said
    host = prediction(host=Bytes(loader=2**31), host_available=2**30)
    assert "in host memory is loader" in advice(recipe(), host, lambda other: host)[0]


def test_a_pool_is_in_no_files(tmp_path: Path) -> None:
    there = recipe(placement="file", placement_folder=str(tmp_path / "rows"))
    config = changed(there, "head", method="f2c")  # as advice tries it
    found = plan_here(config, identities=300, report=quiet, timed=False)
    assert (found.bytes.files, found.disk) == (0, None)
    assert found.bytes.rows > 0

"""The pool filled before the first step: features of the gallery net, slots in order, one state."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError, LabelError, NonFiniteError
from manyface.base.random import numpy_generator, torch_generator
from manyface.data import Augmentation, DualLoader
from manyface.data.synthetic import SyntheticFaces
from manyface.heads import F2C, DynamicClassPool
from manyface.heads.pool_plan import StepPlan
from manyface.margins import CosFace

DIM, IDENTITIES = 8, 30


@dataclass(frozen=True)
class Dual:
    images: Tensor
    labels: Tensor
    plan: StepPlan | None = None


def small_f2c(num_slots: int, *, features: int = 1, **options: object) -> F2C:
    net = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM))
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(DIM, DIM, generator=torch_generator(0, "weight")))
        net[0].bias.zero_()
    pool = DynamicClassPool(num_slots, DIM, margin=CosFace(0.2), scale=8, features=features)
    return F2C(net, pool, num_identities=IDENTITIES, **options)


def images_of(labels: Tensor) -> Tensor:
    return torch.randn(IDENTITIES, DIM, generator=torch_generator(1, "images"))[labels]


def random_batch(step: int, *, size: int = 4) -> Dual:
    labels = torch.from_numpy(numpy_generator(step, "labels").integers(0, IDENTITIES, 2 * size))
    return Dual(images_of(labels) + 0.1 * step, labels)


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("gallery_norm", ["batch", "average", "copy"])
def test_the_pool_is_full_of_gallery_embeddings_in_the_order_they_came(gallery_norm, features):
    f2c = small_f2c(9, gallery_norm=gallery_norm, features=features)
    before = {name: value.clone() for name, value in f2c.gallery_net.named_parameters()}
    labels = torch.tensor([20, 3, 7, 11, 29, 0, 1, 2, 5])
    for part in labels.split(5):
        f2c.prefill(images_of(part), part)
    state = f2c.get_extra_state()
    assert f2c.planner().slots.num_filled == f2c.pool.num_slots
    assert state["identities"].tolist() == labels.tolist()
    assert state["order"].tolist() == list(range(9))  # what came first is evicted first
    assert state["num_updates"] == 0
    f2c.gallery_net.train(gallery_norm == "batch")
    expected = torch.cat([f2c.gallery_net(images_of(part)) for part in labels.split(5)])
    torch.testing.assert_close(f2c.pool.slot_rows[:, 0], nn.functional.normalize(expected, dim=1))
    torch.testing.assert_close(f2c.pool.slot_rows.norm(dim=2), torch.ones(9, features))
    for name, value in f2c.gallery_net.named_parameters():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in f2c.parameters())


def test_what_comes_last_stays_where_there_are_more_identities_than_slots():
    f2c = small_f2c(4)
    for part in torch.arange(10).split((3, 3, 4)):
        f2c.prefill(images_of(part), part)
    state = f2c.get_extra_state()
    assert sorted(state["identities"].tolist()) == [6, 7, 8, 9]
    assert state["identities"][state["order"]].tolist() == [6, 7, 8, 9]


def test_planners_and_a_restored_state_go_on_from_the_filled_pool():
    labels, steps = torch.arange(12) * 2, [random_batch(step) for step in range(12)]
    alone, ahead, resumed = (small_f2c(12) for _ in range(3))
    for f2c in (alone, ahead):
        f2c.prefill(images_of(labels), labels)
    saved = {k: v.clone() if torch.is_tensor(v) else v for k, v in ahead.state_dict().items()}
    planner = ahead.planner()  # all steps are in flight before the first one is trained
    plans = [planner.plan(*(half.numpy() for half in b.labels.split(4))) for b in steps]
    assert plans[0].passes[0].num_filled == 12
    losses = [alone(batch).item() for batch in steps]
    resumed.load_state_dict(saved)
    assert [resumed(batch).item() for batch in steps] == losses
    planned = [Dual(b.images, b.labels, plan) for b, plan in zip(steps, plans, strict=True)]
    assert [ahead(batch).item() for batch in planned] == losses


def test_it_may_come_between_steps_too():
    one, other = small_f2c(12), small_f2c(12)
    labels = torch.arange(5)
    for f2c in (one, other):
        f2c(random_batch(0))
        f2c.prefill(images_of(labels), labels)
    planner = other.planner()
    for step in range(1, 5):
        batch = random_batch(step)
        plan = planner.plan(*(half.numpy() for half in batch.labels.split(4)))
        assert one(batch).item() == other(Dual(batch.images, batch.labels, plan)).item()


@pytest.mark.parametrize(
    ("labels", "images", "error", "words"),
    [
        ([0, IDENTITIES], None, LabelError, r"label 30 at position 1"),
        ([-1, 2], None, LabelError, "label -1"),
        ([0.0, 1.0], None, LabelError, "must be integers"),
        ([0, 1, 2], torch.zeros(2, DIM), LabelError, "one label per embedding"),
        ([0, 1], torch.full((2, DIM), torch.nan), NonFiniteError, "nan"),
        (list(range(10)), None, ConfigError, "10 identities, the pool 9 slots"),
    ],
)
def test_a_wrong_batch_is_refused_and_changes_no_slot(labels, images, error, words):
    f2c, same = small_f2c(9, gallery_norm="average"), small_f2c(9, gallery_norm="average")
    good = torch.tensor([4, 5, 6])
    for each in (f2c, same):
        each.prefill(images_of(good), good)
    wrong = torch.tensor(labels)
    with pytest.raises(error, match=words):
        f2c.prefill(torch.randn(len(labels), DIM) if images is None else images, wrong)
    for step in range(4):  # the planner has not moved either
        assert f2c(random_batch(step)).item() == same(random_batch(step)).item()
    assert torch.equal(f2c.pool.slot_rows, same.pool.slot_rows)


def test_in_ones_own_loop():
    faces = SyntheticFaces(num_identities=20, images_per_identity=3, image_size=32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, DIM))
    f2c = F2C(net, DynamicClassPool(10, DIM, margin=CosFace(0.2)), num_identities=20)
    loader = DualLoader(
        faces, batch_size=8, seed=0, augmentation=Augmentation(), make_planner=f2c.planner
    )
    for batch in loader.prefill(f2c.pool.num_slots):
        f2c.prefill(batch.images, batch.labels)
    for batch in loader.batches(0, 3):
        assert batch.plan.passes[0].num_filled == 10
        f2c(batch).backward()

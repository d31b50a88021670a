"""F2C against the restated official step: losses, gradients, pool and bookkeeping."""

import numpy as np
import pytest
import torch
from f2c_models import DIM, Dual, Identity, planned, random_batch, small_f2c
from torch import Tensor, nn

from manyface.backbones import AveragedNet
from manyface.base.errors import ConfigError, LabelError, NonFiniteError
from manyface.base.random import numpy_generator, torch_generator
from manyface.data import Augmentation, DualLoader
from manyface.data.synthetic import SyntheticFaces
from manyface.heads import F2C, DynamicClassPool
from manyface.heads.pool import hardest
from manyface.heads.pool_plan import PoolPlanner, SlotLedger
from manyface.heads.slots import Slots
from manyface.margins import AdaFace, ArcFace, CosFace, MagFace, Margin
from manyface.softmax.dense import dense_margin_softmax
from manyface.softmax.rows import TensorRows
from manyface.testing.official_f2c import OfficialPool


def official_pool(num_slots: int, margin: Margin, dtype: torch.dtype) -> DynamicClassPool:
    return DynamicClassPool(
        num_slots,
        DIM,
        margin=margin,
        features=2,
        count_empty=True,
        hard_negatives=min(3, num_slots),
        chunk_size=6,
        dtype=dtype,
    )


@pytest.mark.parametrize("margin", [CosFace(0.5), ArcFace(0.3)])
@pytest.mark.parametrize("num_slots", [3, 7, 20, 100])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["fp64", "fp32"]
)
def test_the_official_preset_equals_the_official_step(
    margin: Margin, num_slots: int, dtype: torch.dtype, tolerance: float
):
    labels_from = numpy_generator(num_slots, "labels")
    values_from = torch_generator(num_slots, "features")
    num_identities = 2 * num_slots
    pool = official_pool(num_slots, margin, dtype)
    oracle = OfficialPool(
        pool.slot_rows.transpose(0, 1),
        margin=margin,
        scale=pool.scale,
        hard_negatives=pool.hard_negatives,
    )
    slots = Slots(num_slots, num_identities=num_identities, rule="sequential")
    planner, ledger = PoolPlanner(slots, features=2), SlotLedger(num_slots)
    for _ in range(40):
        size = int(labels_from.integers(1, 12))
        x, y = (labels_from.integers(0, num_identities, size) for _ in range(2))
        features = torch.randn(4, size, DIM, generator=values_from, dtype=dtype)
        probe = [each.clone().requires_grad_() for each in features[:2]]
        expected = oracle.step(
            (probe[0], probe[1]), (features[2], features[3]), (x.tolist(), y.tolist())
        )
        expected_gradients = torch.autograd.grad(expected, probe)
        plan = planner.plan(x, y)
        gallery = (features[3], features[2])
        loss = torch.stack(pool.losses(plan, zip(probe, gallery, strict=True))).sum()
        ledger.apply(plan.change)
        gradients = torch.autograd.grad(loss, probe)
        torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
        for found, wanted in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
        rows = oracle.rows.transpose(0, 1)
        torch.testing.assert_close(pool.slot_rows, rows, rtol=tolerance, atol=tolerance)
        for kept, ahead in zip(
            vars(ledger.state()).values(), vars(slots.state()).values(), strict=True
        ):
            assert np.array_equal(kept, ahead)


@pytest.mark.parametrize("num_slots", [3, 7, 20, 50])
def test_f2c_itself_equals_the_official_step(num_slots: int):
    """Two passes, roll-back, moving gallery net and all, with a net that learns meanwhile."""
    generator = numpy_generator(num_slots, "official F2C")
    values = torch_generator(num_slots, "official F2C")
    pool = official_pool(num_slots, ArcFace(0.3), torch.float64)
    official = {"rule": "sequential", "reduction": "sum", "warmup": False}
    f2c = F2C(Identity(), pool, num_identities=2 * num_slots, decay=0.99, **official)
    oracle = OfficialPool(
        pool.slot_rows.transpose(0, 1),
        margin=pool.margin,
        scale=pool.scale,
        hard_negatives=pool.hard_negatives,
    )
    weight, gallery = f2c.probe_net.weight, f2c.probe_net.weight.detach().clone()
    for _ in range(40):
        size = int(generator.integers(1, 12))
        images = torch.randn(2 * size, DIM, generator=values, dtype=torch.float64)
        labels = generator.integers(0, 2 * num_slots, 2 * size)
        gallery = 0.99 * gallery + 0.01 * weight.detach()
        expected = oracle.step(
            (images * weight).split(size),
            (images * gallery).split(size),
            (labels[:size].tolist(), labels[size:].tolist()),
        )
        loss = f2c(Dual(images, torch.from_numpy(labels)))
        found, wanted = (torch.autograd.grad(each, weight)[0] for each in (loss, expected))
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        rows = oracle.rows.transpose(0, 1)
        torch.testing.assert_close(pool.slot_rows, rows, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            weight -= 0.01 * found


def test_a_pool_of_everybody_is_a_softmax_against_the_latest_features():
    """One slot per identity, no moving average (decay 0), one pass."""
    f2c = small_f2c(9, 9, num_passes=1, decay=0.0)
    latest: dict[int, Tensor] = {}  # in the order of first appearance, as slots are given out
    for step in range(30):
        batch = random_batch(step, size=5, num_identities=9)
        with torch.no_grad():
            f2c.probe_net.weight.copy_(torch.rand(DIM, generator=torch_generator(step, "w")) + 0.5)
        loss = f2c(batch)
        (gradient,) = torch.autograd.grad(loss, f2c.probe_net.parameters())
        weight = f2c.probe_net.weight
        for label, image in zip(batch.labels[5:].tolist(), batch.images[5:], strict=True):
            latest[label] = (image * weight).detach()
        inside = [i for i in range(5) if int(batch.labels[i]) in latest]
        outside = [i for i in range(5) if i not in inside]
        rows = torch.stack(list(latest.values()))
        targets = torch.tensor([list(latest).index(int(batch.labels[i])) for i in inside])
        embeddings = batch.images[:5] * weight
        expected = dense_margin_softmax(
            embeddings[inside], rows, targets, margin=CosFace(0.2), scale=8
        )
        if outside:
            unit = embeddings[outside] / embeddings[outside].norm(dim=1, keepdim=True)
            cosines = unit @ (rows / rows.norm(dim=1, keepdim=True)).T
            expected = expected + cosines.topk(min(3, len(rows)), dim=1).values.clamp_min(0).mean()
        (expected_gradient,) = torch.autograd.grad(expected, f2c.probe_net.parameters())
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-10)


def test_the_gallery_net_follows_once_per_step():
    f2c = small_f2c(9, 9, decay=0.9, warmup=False)
    follower = AveragedNet(Identity(), decay=0.9, warmup=False)
    for step in range(5):
        with torch.no_grad():
            f2c.probe_net.weight.add_(0.1)
        f2c(random_batch(step, size=4, num_identities=9))
        f2c(random_batch(step, size=4, num_identities=9), follow=False)
        follower.update(f2c.probe_net)
        assert torch.equal(f2c.gallery_net.weight, follower.net.weight)
    assert not f2c.gallery_net.weight.requires_grad


def test_y_is_taken_back_and_x_stays():
    f2c = small_f2c(4, 20)
    batch = Dual(torch.randn(4, DIM, dtype=torch.float64), torch.tensor([3, 5, 7, 11]), plan=None)
    f2c(batch)
    state = f2c.get_extra_state()
    assert state["identities"].tolist() == [3, 5]
    unit = batch.images[:2] / batch.images[:2].norm(dim=1, keepdim=True)
    torch.testing.assert_close(f2c.pool.slot_rows[:2, 0], unit)


def test_a_step_survives_in_float32_what_breaks_the_official_code():
    """There the pool is overwritten in place between forward and backward."""
    pool = DynamicClassPool(6, DIM, margin=CosFace(0.4))
    f2c = F2C(nn.Linear(DIM, DIM), pool, num_identities=30)
    batch = random_batch(0, size=5, num_identities=30)
    loss = f2c(Dual(batch.images.float(), batch.labels))
    loss.backward()
    assert torch.isfinite(f2c.probe_net.weight.grad).all()


def test_plans_made_ahead_and_a_restored_state_go_on_alike():
    """A planner may be many steps ahead: the state is that of the last step trained."""
    steps = [random_batch(step, size=6, num_identities=40) for step in range(20)]
    alone, ahead = small_f2c(12, 40), small_f2c(12, 40)
    planner = ahead.planner()
    made_ahead = [planned(batch, planner) for batch in steps]
    losses = [alone(batch).item() for batch in steps]
    for step, batch in enumerate(made_ahead):
        assert ahead(batch).item() == losses[step]
        if step == 9:
            saved = ahead.state_dict()
            saved = {k: v.clone() if isinstance(v, Tensor) else v for k, v in saved.items()}
    resumed = small_f2c(12, 40)
    resumed.load_state_dict(saved)
    assert [resumed(batch).item() for batch in steps[10:]] == losses[10:]


@pytest.mark.parametrize("num_rows", [1, 4, 23])
def test_hardest_rows_by_chunks(num_rows: int):
    generator = torch_generator(num_rows, "hardest")
    unit, rows = (torch.randn(n, DIM, generator=generator) for n in (6, num_rows))
    found = hardest(unit, TensorRows(rows), k=3, chunk_size=4)
    expected = (unit @ rows.T).topk(min(3, num_rows), dim=1).values
    torch.testing.assert_close((unit @ rows.T).gather(1, found), expected)


def test_what_is_refused():
    f2c = small_f2c(3, 20)
    with pytest.raises(ConfigError, match="two half batches of equal size, got 3 images"):
        f2c(Dual(torch.randn(3, DIM, dtype=torch.float64), torch.tensor([0, 1, 2])))
    with pytest.raises(ConfigError, match="two half batches of equal size, got 1 images"):
        f2c(Dual(torch.randn(1, DIM, dtype=torch.float64), torch.tensor([0])))
    for label, words in ((20, r"label 20 at position 0 .* outside \[0, 20\)"), (-1, "label -1")):
        with pytest.raises(LabelError, match=words):
            f2c(Dual(torch.randn(2, DIM, dtype=torch.float64), torch.tensor([0, label])))
    with pytest.raises(LabelError, match="labels must be integers"):
        f2c(Dual(torch.randn(2, DIM, dtype=torch.float64), torch.tensor([0.0, 1.5])))
    with pytest.raises(LabelError, match="one label per image: 6 images, 4 labels"):
        f2c(Dual(torch.randn(6, DIM, dtype=torch.float64), torch.arange(4)))
    with pytest.raises(ConfigError, match="4 identities, the pool 3 slots"):
        f2c(Dual(torch.randn(8, DIM, dtype=torch.float64), torch.arange(8)))
    with pytest.raises(NonFiniteError):
        f2c(Dual(torch.full((2, DIM), torch.nan, dtype=torch.float64), torch.tensor([0, 1])))
    with pytest.raises(ConfigError, match="1 or 2 passes"):
        small_f2c(3, 20, num_passes=3)
    for wrong in ({"features": 3}, {"outlier_weight": -1.0}, {"hard_negatives": 0}):
        with pytest.raises(ConfigError):
            DynamicClassPool(3, DIM, margin=CosFace(), **wrong)
    with pytest.raises(ConfigError, match="F2C keeps no running averages"):
        DynamicClassPool(3, DIM, margin=AdaFace())
    with pytest.raises(ConfigError, match="F2C does not train the length"):
        DynamicClassPool(3, DIM, margin=MagFace())


def test_a_pool_larger_than_the_identities_is_refused():
    with pytest.raises(
        ConfigError, match=r"1 <= slots <= identities .* 21 slots for 20 identities"
    ):
        small_f2c(21, 20)


def test_a_small_pool_is_walked_through_under_the_sequential_rule():
    """More identities in half a batch than slots: the last ones stay."""
    f2c = small_f2c(3, 20, rule="sequential")
    batch = Dual(torch.randn(10, DIM, dtype=torch.float64), torch.arange(10))
    assert torch.isfinite(f2c(batch))
    assert sorted(f2c.get_extra_state()["identities"].tolist()) == [2, 3, 4]


def test_labels_out_of_range_come_out_of_the_loader_whose_thread_plans():
    """The planner was told of fewer identities than the data have."""
    f2c = small_f2c(6, 7)
    loader = DualLoader(
        SyntheticFaces(num_identities=12, images_per_identity=2, image_size=32),
        batch_size=8,
        seed=0,
        augmentation=Augmentation(),
        make_planner=f2c.planner,
    )
    with pytest.raises(
        LabelError, match=r"label \d+ at position \d .* outside \[0, 7\): check num"
    ):
        list(loader.batches(0, 3))


def test_the_labels_of_a_planned_batch_are_not_read_again():
    one, other = small_f2c(6, 20), small_f2c(6, 20)
    batch = random_batch(0, size=4, num_identities=20)
    x, y = (half.numpy() for half in batch.labels.split(4))
    strange = Dual(batch.images, torch.full((8,), 99), other.planner().plan(x, y))
    assert other(strange).item() == one(batch).item()
    with pytest.raises(LabelError, match="one label per image: 6 images, 8 labels"):
        other(Dual(batch.images[:6], batch.labels[:6], strange.plan))


def saved_f2c(num_slots: int, num_identities: int) -> F2C:
    f2c = small_f2c(num_slots, num_identities)
    for step in range(6):
        f2c(random_batch(step, size=3, num_identities=num_identities))
    return f2c


@pytest.mark.parametrize(
    ("slots", "identities", "words"),
    [
        (4, 20, r"another pool: .* are \[8, 1, 8\], here \[4, 1, 8\]; make the pool as it was"),
        (12, 20, r"are \[8, 1, 8\], here \[12, 1, 8\]"),
        (8, 9, r"other identities: it holds \d+ to 1\d, expected \[0, 9\)"),
    ],
)
def test_the_state_of_another_pool_is_refused_and_nothing_is_loaded(slots, identities, words):
    state = saved_f2c(8, 20).state_dict()
    other = small_f2c(slots, identities)
    rows, weight = other.pool.slot_rows.clone(), other.probe_net.weight.clone()
    with pytest.raises(ConfigError, match=words):
        other.load_state_dict(state)
    assert torch.equal(other.pool.slot_rows, rows)
    assert torch.equal(other.probe_net.weight, weight)
    assert len(other.get_extra_state()["identities"]) == 0
    assert torch.isfinite(other(random_batch(0, size=3, num_identities=identities)))


@pytest.mark.parametrize("features", [1, 2])
def test_a_state_of_before_slots_came_first_goes_on(features: int):
    """Two slots, so that shapes cannot tell."""

    def make() -> F2C:
        pool = DynamicClassPool(2, DIM, margin=CosFace(0.2), features=features, dtype=torch.float64)
        return F2C(Identity(), pool, num_identities=20, rule="sequential")

    f2c, other = make(), make()
    for step in range(3):
        f2c(random_batch(step, size=3, num_identities=20))
    state = f2c.state_dict()
    state["pool.rows"] = state.pop("pool.slot_rows").transpose(0, 1).clone()
    other.load_state_dict(state)
    assert torch.equal(f2c.pool.slot_rows, other.pool.slot_rows)
    batch = random_batch(3, size=3, num_identities=20)
    assert f2c(batch).item() == other(batch).item()


def test_the_state_of_two_features_is_refused_by_a_pool_of_one():
    pool = DynamicClassPool(8, DIM, margin=CosFace(0.2), features=2, dtype=torch.float64)
    state = F2C(Identity(), pool, num_identities=20).state_dict()
    with pytest.raises(ConfigError, match=r"are \[8, 2, 8\], here \[8, 1, 8\]"):
        small_f2c(8, 20).load_state_dict(state)


def test_more_identities_than_when_it_was_saved_may_come():
    grown = small_f2c(8, 40)
    grown.load_state_dict(saved_f2c(8, 20).state_dict())
    assert torch.isfinite(grown(random_batch(0, size=3, num_identities=40)))


def test_a_net_with_batch_norm_refuses_a_batch_of_one_pair():
    """The error is torch's, and nothing has been written."""
    net = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM))
    f2c = F2C(net, DynamicClassPool(5, DIM, margin=CosFace(0.2)), num_identities=20)
    rows = f2c.pool.slot_rows.clone()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        f2c(Dual(torch.randn(2, DIM), torch.tensor([0, 1])))
    assert torch.equal(f2c.pool.slot_rows, rows)


def test_a_batch_of_one_pair():
    f2c = small_f2c(5, 20)
    losses = [f2c(random_batch(s, size=1, num_identities=20)).item() for s in range(10)]
    assert np.isfinite(losses).all()

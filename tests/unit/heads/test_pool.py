"""What each option of the pool does, and what F2C keeps in memory."""

import numpy as np
import pytest
import torch
from f2c_models import DIM, Dual, random_batch, small_f2c
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.base.random import torch_generator
from manyface.heads import F2C, DynamicClassPool
from manyface.heads.pool_plan import PassPlan, PoolPlanner
from manyface.heads.slots import Slots
from manyface.margins import CosFace


def written(*, probes: list[int], **options: object) -> tuple[DynamicClassPool, PassPlan, Tensor]:
    """A pool with the identities 0 to 4, the plan of probes, and their embeddings."""
    pool = DynamicClassPool(6, DIM, margin=CosFace(0.2), **options)
    planner = PoolPlanner(Slots(6, num_identities=20), num_passes=1)
    plan = planner.plan(np.array(probes), np.arange(5)).passes[0]
    features, embeddings = torch.randn(2, 5, DIM, generator=torch_generator(0, "pool"))
    pool.write(plan, features)
    return pool, plan, embeddings[: len(probes)]


def loss_of(*, probes: list[int], **options: object) -> float:
    pool, plan, embeddings = written(probes=probes, **options)
    return pool.loss(embeddings, plan).item()


def test_weight_and_clip_of_the_outliers():
    pool, _, embeddings = written(probes=[10, 11, 12], hard_negatives=2)
    cosines = nn.functional.normalize(embeddings, dim=1) @ pool.slot_rows[:5, 0].T
    hardest = cosines.topk(2, dim=1).values
    for weight, clip in ((1, 0), (8, 0), (1, 0.2), (3, 0.4)):
        options = {"outlier_weight": weight, "outlier_clip": clip, "hard_negatives": 2}
        expected = weight * (hardest - clip).clamp_min(0).mean()
        assert expected > 0
        assert loss_of(probes=[10, 11, 12], **options) == pytest.approx(expected.item(), rel=1e-5)
    assert loss_of(probes=[10, 11, 12], outlier_weight=0) == 0
    assert loss_of(probes=[0, 1], outlier_weight=8) == loss_of(probes=[0, 1])


@pytest.mark.parametrize("clip", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_clip_that_is_no_cosine(clip: float):
    with pytest.raises(ConfigError, match=r"outlier_clip must be a cosine in \[0, 1\], got"):
        DynamicClassPool(6, DIM, margin=CosFace(), outlier_clip=clip)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_of_more_than_64_bits(seed: int):
    with pytest.raises(ConfigError, match=r"seed must be in \[0, 2\*\*64\), got"):
        DynamicClassPool(6, DIM, margin=CosFace(), seed=seed)


@pytest.mark.parametrize(
    ("num_slots", "expected"), [(100, 3), (15_001, 3), (25_000, 5), (100_000, 10)]
)
def test_hard_negatives_left_out(num_slots: int, expected: int):
    assert DynamicClassPool(num_slots, 1, margin=CosFace()).hard_negatives == expected


def test_float16_embeddings_longer_than_float16_can_say():
    pool, plan, _ = written(probes=[0, 1, 10])
    long = torch.full((5, DIM), 6e4, dtype=torch.float16)
    pool.write(plan, long)
    assert pool.loss(long[:3], plan).item() == pool.loss(long[:3].float(), plan).item()


def test_the_loss_is_full_precision_under_autocast():
    pool, plan, embeddings = written(probes=[0, 1, 10])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pool.loss(embeddings, plan)
    assert torch.equal(inside, pool.loss(embeddings, plan))


def test_rows_that_count_though_nobody_has_them_are_in_one_quadrant():
    rows = DynamicClassPool(300, 64, margin=CosFace(), features=2, count_empty=True).slot_rows
    torch.testing.assert_close(rows.norm(dim=2), torch.ones(300, 2))
    assert rows.min() >= 0
    cosines = (rows[:, 0] @ rows[:, 0].T)[~torch.eye(300, dtype=torch.bool)]
    assert float(cosines.mean()) == pytest.approx(0.75, abs=0.02)


def test_the_losses_of_the_passes_are_averaged_or_added():
    batch = random_batch(0, size=3, num_identities=20)
    mean, added = (small_f2c(6, 20, reduction=each)(batch).item() for each in ("mean", "sum"))
    assert added == pytest.approx(2 * mean, rel=1e-12)
    assert mean > 0


@pytest.mark.parametrize("gallery_norm", ["copy", "average"])
def test_statistics_of_the_gallery_nets_batch_norm(gallery_norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM))
    pool = DynamicClassPool(6, DIM, margin=CosFace())
    f2c = F2C(
        net,
        pool,
        num_identities=20,
        gallery_norm=gallery_norm,
        num_passes=1,
        decay=0.99,
        warmup=False,
    )
    batch = random_batch(0, size=4, num_identities=20)
    f2c(Dual(batch.images.float(), batch.labels))
    mine, theirs = f2c.gallery_net[1].running_mean, net[1].running_mean
    torch.testing.assert_close(mine, theirs if gallery_norm == "copy" else 0.01 * theirs)


def nbytes(thing: object) -> int:
    return sum(each.nbytes for each in vars(thing).values() if isinstance(each, np.ndarray))


def test_memory_of_ten_million_identities_and_a_million_slots():
    pool = DynamicClassPool(1_000_000, 1, margin=CosFace())
    f2c = F2C(nn.Linear(1, 1), pool, num_identities=10_000_000)
    assert f2c._planner is None  # none of its own where a loader has one
    slots = f2c.planner().slots
    assert nbytes(slots) + nbytes(slots._uses) == slots.num_bytes == 61_000_000
    assert slots.num_bytes + nbytes(f2c._ledger) == 74_000_000

"""Small F2C's and batches for them, shared by the tests of heads/f2c.py."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manyface.base.random import numpy_generator, torch_generator
from manyface.heads import F2C, DynamicClassPool
from manyface.heads.pool_plan import PoolPlanner, StepPlan
from manyface.margins import CosFace

DIM = 8


@dataclass(frozen=True)
class Dual:
    images: Tensor
    labels: Tensor
    plan: StepPlan | None = None


class Identity(nn.Module):
    """A net whose output is its input times a weight, and which can be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.weight


def small_f2c(num_slots: int, num_identities: int, **options: object) -> F2C:
    pool = DynamicClassPool(
        num_slots, DIM, margin=CosFace(0.2), scale=8, dtype=torch.float64, chunk_size=5
    )
    return F2C(Identity(), pool, num_identities=num_identities, **options)


def random_batch(step: int, *, size: int, num_identities: int) -> Dual:
    images = torch.randn(
        2 * size, DIM, generator=torch_generator(step, "images"), dtype=torch.float64
    )
    labels = numpy_generator(step, "labels").integers(0, num_identities, 2 * size)
    return Dual(images, torch.from_numpy(labels))


def planned(batch: Dual, planner: PoolPlanner) -> Dual:
    """The batch with its plan."""
    x, y = (half.numpy() for half in batch.labels.chunk(2))
    return Dual(batch.images, batch.labels, planner.plan(x, y))

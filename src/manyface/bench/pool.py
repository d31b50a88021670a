"""A step of F2C's pool, without its nets: two passes, roles swapped, as `heads/f2c.py` runs them.

B counts the distinct images of a step. Each half batch of B / 2 is probe once and gallery once, so
there are two passes of B / 2 probes against the Q slots. As the paper's dual loader mixes them,
half of the images are pairs of one identity, the others anybody's; the pool is full before the
first step, so most of the others are outside of it. Planning the slots is a loader's work in
training and is timed apart.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.permutation import Permutation
from manyface.bench.centers import MARGIN, random_embeddings, streamed_bytes
from manyface.bench.shape import Needs, Shape
from manyface.data.dual import num_pairs
from manyface.heads.placement import SlotState
from manyface.heads.pool import DynamicClassPool
from manyface.heads.pool_plan import PoolPlanner, SlotLedger, StepPlan
from manyface.heads.slots import Slots

_IDENTITY_SHARE = 0.5


class PoolRun:
    """Pool, slots and ledger in the state of a training that has long been running."""

    def __init__(self, shape: Shape) -> None:
        self._pool = DynamicClassPool(
            shape.slots,
            shape.dim,
            margin=MARGIN,
            scale=64.0,
            chunk_size=shape.chunk_size,
            dtype=shape.torch_dtype,
        )
        slots, self._ledger = (
            Slots(shape.slots, num_identities=shape.classes),
            SlotLedger(shape.slots),
        )
        state = full_pool(shape.slots, shape.classes)
        slots.restore(state)
        self._ledger.restore(state)
        self._planner, self._plan = PoolPlanner(slots), StepPlan((), slots.insert(np.empty(0, int)))
        half = shape.batch // 2
        self._probes = [random_embeddings(shape, n, half).requires_grad_() for n in ("x", "y")]
        self._features = [
            random_embeddings(shape, name, half) for name in ("y features", "x features")
        ]
        self._num_pairs = num_pairs(shape.batch, _IDENTITY_SHARE)
        self._inside, self._outside = 0, 0

    def plan(self, labels: Tensor) -> None:
        """Slots of a step whose half batches show `num_pairs` identities face to face."""
        x, y = np.split(labels.numpy().copy(), 2)
        y[: self._num_pairs] = x[: self._num_pairs]
        self._plan = self._planner.plan(x, y)
        self._inside += sum(len(each.inside) for each in self._plan.passes)
        self._outside += sum(len(each.outside) for each in self._plan.passes)

    def step(self, labels: Tensor) -> None:
        """Write, loss, take back; write, loss; backward."""
        for probe in self._probes:
            probe.grad = None
        batches = zip(self._probes, self._features, strict=True)
        losses = self._pool.losses(self._plan, batches)
        self._ledger.apply(self._plan.change)
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]

    def figures(self) -> dict[str, Any]:
        """How B is scored: `products` is what the scores of a probe and their gradient need.

        Two products of [1, D] x [D, Q] for a probe inside the pool, one for one outside of it.
        """
        scored = self._inside + self._outside
        return {
            "passes": len(self._plan.passes),
            "probes_per_pass": len(self._probes[0]),
            "share_inside": self._inside / scored,
            "products": (2 * self._inside + self._outside) / scored,
        }


def check_pool(shape: Shape) -> None:
    """Two half batches, each of at most as many identities as there are slots."""
    if shape.batch % 2:
        raise ConfigError(f"f2c takes two half batches: batch must be even, got {shape.batch}")
    if shape.batch // 2 > shape.slots:
        raise ConfigError(
            f"half a batch of {shape.batch} may have more identities than f2c's pool has slots "
            f"({shape.slots}); take a larger pool_ratio or a smaller batch"
        )


def pool_rows(shape: Shape) -> int:
    """Rows of a pass: all slots."""
    return shape.slots


def pool_needs(shape: Shape) -> Needs:
    """Features [Q, D], drawn in place; bookkeeping of the slots."""
    rows = shape.slots * shape.dim * shape.number_bytes
    # Index of 4 bytes an identity; identity, next row, stamp, log and ledger of each slot.
    books = 4 * shape.classes + (4 + 1 + 8 + 8 + 24) * shape.slots
    return Needs(rows + books, 0, streamed_bytes(shape))


def full_pool(num_slots: int, num_identities: int) -> SlotState:
    """Every slot taken, by identities drawn without replacement."""
    everyone = np.arange(num_slots)
    identities = Permutation(num_identities, seed=0)(everyone)
    return SlotState(identities, order=everyone, next_rows=np.ones(num_slots, np.int64))

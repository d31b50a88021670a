"""F2C and Virtual FC that are trained on ranks and in one process, and what is compared."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from f2c_models import DIM, Dual, Identity
from head_cases import LOSSES
from torch import Tensor

import manyface as mf
from manyface.base.random import numpy_generator, torch_generator
from manyface.heads import F2C, DynamicClassPool
from manyface.margins import CosFace, Margin
from manyface.parallel import ALONE, Ranks, Shard

STEPS, MARGIN = 6, CosFace(0.2)
OFFICIAL = {"rule": "sequential", "reduction": "sum", "warmup": False, "decay": 0.99}


@dataclass(frozen=True)
class PoolCase:
    """What is trained; `counts` are the pairs of each rank, in turn from step to step."""

    counts: tuple[int, ...]
    num_slots: int = 13
    num_identities: int = 40
    pool: tuple[tuple[str, Any], ...] = ()
    f2c: tuple[tuple[str, Any], ...] = ()
    margin: Margin = MARGIN
    prefilled: int = 0
    is_planned: bool = False

    def counts_of(self, step: int) -> tuple[int, ...]:
        """One rank further in every step."""
        turn = step % len(self.counts)
        return self.counts[turn:] + self.counts[:turn]

    def alone(self, step: int) -> "PoolCase":
        """One rank with all pairs."""
        return replace(self, counts=(sum(self.counts_of(step)),))


@dataclass(frozen=True)
class TrainedPool:
    """What came of it: losses, gradients of this rank's probes in every pass, its slots' rows."""

    losses: list[float]
    gradients: list[Tensor]
    rows: Tensor
    weight: Tensor
    state: dict[str, Tensor]
    sent: dict[str, int]


def make_f2c(case: PoolCase, ranks: Ranks) -> F2C:
    options: dict[str, Any] = {"scale": 8.0, "chunk_size": 5, **dict(case.pool)}
    pool = DynamicClassPool(
        case.num_slots, DIM, margin=case.margin, dtype=torch.float64, ranks=ranks, **options
    )
    return F2C(Identity(), pool, num_identities=case.num_identities, **dict(case.f2c))


def half_batches(case: PoolCase, step: int) -> tuple[Tensor, Tensor]:
    """Images [2, n, DIM] and labels [2, n] of all ranks; most pairs are of one identity."""
    n = sum(case.counts)
    images = torch.randn(2, n, DIM, generator=torch_generator(step, "images"), dtype=torch.float64)
    draw = numpy_generator(step, "labels")
    labels = draw.integers(0, case.num_identities, (2, n))
    labels[1, : n // 2] = labels[0, : n // 2]
    return images, torch.from_numpy(labels)


def part_of(counts: tuple[int, ...], rank: int) -> slice:
    first = sum(counts[:rank])
    return slice(first, first + counts[rank])


def train_pool(case: PoolCase) -> TrainedPool:
    """On this rank, its part of every batch."""
    return _train_pool(case, Ranks())


def train_pool_alone(case: PoolCase) -> TrainedPool:
    """The same in one process."""
    return _train_pool(replace(case, counts=(sum(case.counts),)), ALONE)


def _train_pool(case: PoolCase, ranks: Ranks) -> TrainedPool:
    f2c = make_f2c(case, ranks)
    outputs: list[Tensor] = []
    f2c.probe_net.register_forward_hook(lambda _, __, output: outputs.append(output))
    _prefill(f2c, case)
    planner = f2c.planner() if case.is_planned else None
    losses, gradients = [], []
    for step in range(STEPS):
        images, labels = half_batches(case, step)
        plan = planner.plan(*(half.numpy() for half in labels)) if planner else None
        mine = part_of(case.counts_of(step), ranks.rank)
        outputs.clear()
        loss = f2c(Dual(images[:, mine].flatten(0, 1), labels[:, mine].flatten(), plan))
        weight = f2c.probe_net.weight
        for output in outputs:
            output.retain_grad()
        loss.backward()
        losses.append(loss.item())
        gradients += [output.grad / ranks.size for output in outputs]
        ranks.sum_(weight.grad, "as DDP does").div_(ranks.size)
        with torch.no_grad():
            weight -= 0.1 * weight.grad
        weight.grad = None
    state = {**f2c.get_extra_state(), "gallery": f2c.gallery_net.weight.clone()}
    return TrainedPool(
        losses, gradients, f2c.pool.slot_rows, weight.detach(), state, dict(ranks.sent)
    )


def _prefill(f2c: F2C, case: PoolCase) -> None:
    """In two batches, each rank its share."""
    labels = torch.arange(case.prefilled) * 3 % case.num_identities
    images = torch.randn(
        len(labels), DIM, generator=torch_generator(0, "prefill"), dtype=torch.float64
    )
    ranks = f2c.pool.ranks
    for part in torch.arange(case.prefilled).chunk(2) if case.prefilled else ():
        shard = Shard.of(len(part), rank=ranks.rank, size=ranks.size)
        mine = part[shard.start : shard.stop]
        f2c.prefill(images[mine], labels[mine])


# --- Virtual FC -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedAnchors:
    losses: list[float]
    gradients: list[Tensor]
    rows: Tensor
    is_filled: Tensor
    sent: dict[str, int]


def train_anchors(counts: tuple[int, ...], loss: str) -> TrainedAnchors:
    """On this rank."""
    return _train_anchors(counts, loss, Ranks())


def train_anchors_alone(counts: tuple[int, ...], loss: str) -> TrainedAnchors:
    """In one process."""
    return _train_anchors((sum(counts),), loss, ALONE)


def _train_anchors(counts: tuple[int, ...], loss: str, ranks: Ranks) -> TrainedAnchors:
    head = mf.VirtualFC(
        num_classes=50,
        num_anchors=11,
        dim=DIM,
        margin=copy.deepcopy(LOSSES[loss]["margin"]),
        scale=16.0,
        chunk_size=4,
        dtype=torch.float64,
        ranks=ranks,
    )
    losses, gradients = [], []
    for step in range(STEPS):
        draw = torch_generator(step, "virtual")
        embeddings = torch.randn(sum(counts), DIM, generator=draw, dtype=torch.float64)
        labels = torch.randint(50, (sum(counts) // 2 + 1,), generator=draw).repeat(2)
        mine = part_of(counts, ranks.rank)
        x = embeddings[mine].requires_grad_()
        found = head(x, labels[: sum(counts)][mine])
        found.backward()
        losses.append(found.item())
        assert x.grad is not None
        gradients.append(x.grad / ranks.size)
    return TrainedAnchors(losses, gradients, head.rows, head.is_filled, dict(ranks.sent))

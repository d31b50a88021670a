"""A small copy of the head of a recipe: the same code, fewer classes.

Bytes and seconds of a step grow with the active rows: one point is measured, with the recipe's
batch, and what the recipe's own takes is in proportion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import ceil

import torch
from torch import Tensor, nn

from manyface.base.random import torch_generator
from manyface.centers import CenterTable, RowSGD
from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.data import DualBatch
from manyface.heads import CenterHead
from manyface.heads.f2c import F2C
from manyface.heads.hard import CLASSES_AT_A_TIME, HardNegatives, nearest_classes
from manyface.heads.sampling import sample_size
from manyface.plan.live import live_bytes
from manyface.plan.measuring import bytes_of, changed, in_memory, line_to, seconds_of, wait_for
from manyface.plan.prediction import Line
from manyface.softmax.streamed import DEFAULT_KEPT_BYTES
from manyface.train.build_model import build_f2c, build_head, build_sampler, num_slots

# Rows that a copy scores at most, and the least rate at which it samples them.
_MOST_ROWS, _LEAST_RATE = 2**16, 0.25
_LEAST_ROWS = 2**14  # where bytes alone are asked for
_COUNTED = 512  # images with which a copy runs where its bytes alone are asked for
_INDEX_OF_SLOT = 4 + 1 + 8 + 8 + 13  # bytes of a pool's index and ledger
_LISTED = 2**13  # classes among which a copy looks for neighbours


@dataclass(frozen=True)
class HeadCosts:
    """Of the head alone.

    Attributes:
        rows: bytes of centers or features, for all identities.
        state: bytes of what goes with them.
        stepping: bytes alive in a step beside these.
        seconds: forward, backward, update; None where only bytes were asked for.
        active: classes that a step scores.
        moving: bytes of their rows and state.
        lists: what the sampler of hard negatives keeps and takes; None without it.
    """

    rows: int
    state: int
    stepping: int
    seconds: float | None
    active: int
    moving: int
    lists: "ListCosts | None" = None


def head_costs(
    config: Config,
    identities: int,
    *,
    batch_size: int,
    ranks: int = 1,
    device: torch.device,
    timed: bool,
) -> HeadCosts:
    """Measured on a head of fewer classes, if there are many; bytes alone with fewer images too.

    Args:
        config: the recipe.
        identities: whose rows are on this rank.
        batch_size: embeddings that meet them, of all ranks.
        ranks: that share the rows: one has its part of the batch's own classes.
        device: that computes.
        timed: whether to measure seconds.
    """
    active = active_rows(config, identities, batch_size=batch_size, ranks=ranks)
    small, few = _few_classes(config, identities, active, most=_MOST_ROWS if timed else _LEAST_ROWS)
    # A power of two, so that other numbers of ranks find the same copy measured.
    images = batch_size if timed else min(1 << (batch_size.bit_length() - 1), _COUNTED)
    scored = active_rows(small, few, batch_size=images)
    keeps = active * _kept_each(config, batch_size) <= DEFAULT_KEPT_BYTES
    measure = _measured if timed else _remembered
    found = measure(small, few, images=images, keeps=keeps, device=device, timed=timed)
    kept = (active - scored) * _kept_each(config, batch_size) if keeps else 0
    rows, state = _whole(config, found, identities, few, active=active, scored=scored)
    stepping = int(found.stepping.at(batch_size)) + kept + _draw_bytes(config, active - scored)
    return HeadCosts(
        rows=rows,
        state=state,
        stepping=stepping,
        seconds=None if found.seconds is None else found.seconds * active / scored,
        active=active,
        moving=int((rows + state) * active / identities),
        lists=_list_costs(config, identities, device=device, timed=timed),
    )


@dataclass(frozen=True)
class _Copy:
    """Bytes of its rows and state, of a step by images; seconds."""

    rows: int
    state: int
    stepping: Line
    seconds: float | None


def _whole(
    config: Config, found: _Copy, identities: int, few: int, *, active: int, scored: int
) -> tuple[int, int]:
    """Bytes of rows and of their state, of all identities; a pool's grow with its slots."""
    share = identities / few if config.head.method not in WITHOUT_CENTERS else active / scored
    rows, state = int(found.rows * share), int(found.state * share)
    if config.head.method == "f2c":
        state = 4 * identities + _INDEX_OF_SLOT * active
    return rows, state


def _measured(
    small: Config, few: int, *, images: int, keeps: bool, device: torch.device, timed: bool
) -> _Copy:
    """Of a head of so few classes; `keeps`: numerators from forward to step."""
    head = _build(small, few, device=device)
    if not keeps and isinstance(head, CenterHead):
        head.kept_bytes = 0
    step = _head_step(head, small, few, batch_size=images)
    step()

    def alive(images: int) -> float:
        return live_bytes(_head_step(head, small, few, batch_size=images))

    rows, state = _held(head)
    return _Copy(rows, state, line_to(images, alive), seconds_of(step) if timed else None)


_remembered = cache(_measured)  # bytes are the same each time


def _kept_each(config: Config, batch_size: int) -> int:
    """Bytes of a class's numerators; 0 for a head that keeps none.

    Whether they are kept decides between three matrix products and four.
    """
    if config.head.method in WITHOUT_CENTERS:
        return 0
    chosen = config.head
    is_half = "bfloat16" in (chosen.dtype, chosen.operands)
    return batch_size * chosen.sub_centers * (2 if is_half else 4)


def _draw_bytes(config: Config, rows: int) -> int:
    """Arrays of ids while so many rows more are drawn."""
    return 5 * 8 * max(0, rows) if config.head.method == "partial" else 0


def active_rows(config: Config, identities: int, *, batch_size: int, ranks: int = 1) -> int:
    """Rows that a step scores, of `identities` on one of `ranks` that have `batch_size` images."""
    if config.head.method in WITHOUT_CENTERS:
        return num_slots(config, identities)
    if config.head.method == "full":
        return identities
    positives = min(ceil(batch_size / ranks), identities)
    return max(sample_size(identities, config.head.sample_rate), positives)


def _few_classes(config: Config, identities: int, active: int, *, most: int) -> tuple[Config, int]:
    """The recipe with as many identities as make `most` active, in blocks as in its own."""
    rate = max(ceil(64 * active / identities) / 64, _LEAST_RATE)  # few different ones
    few = min(identities, int(most / rate))
    if config.head.method in WITHOUT_CENTERS:
        return changed(config, "pool", slots=max(1, int(few * rate)), ratio=None), few
    if config.head.method == "partial":  # with the same rate for any batch
        rate = rate if few < identities else min(1.0, active / identities)
        return changed(config, "head", sample_rate=rate), few
    return config, few


def _build(config: Config, identities: int, *, device: torch.device) -> nn.Module:
    config = in_memory(config)
    if config.head.method == "f2c":
        f2c = build_f2c(config, _Nothing(), identities, device=device)
        people = torch.arange(f2c.pool.num_slots)
        f2c.prefill(torch.randn(len(people), f2c.pool.dim, device=device), people)
        return f2c
    head = build_head(config, identities, device=device)
    assert isinstance(head, nn.Module)  # noqa: S101
    return head


class _Nothing(nn.Module):
    """A net that costs nothing: embeddings are images. (A moving average needs a weight.)"""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return images


def _head_step(
    head: nn.Module, config: Config, identities: int, *, batch_size: int
) -> Callable[[], None]:
    draw = torch_generator(0, "plan")
    device = next(iter(head.buffers())).device
    embeddings = torch.randn(batch_size, config.backbone.embedding_size, generator=draw)
    embeddings = embeddings.to(device).requires_grad_()
    half = torch.randint(identities, (-(-batch_size // 2),), generator=draw)
    labels = torch.cat([half, half])[:batch_size].to(device)

    move = getattr(head, "step", None)  # the pool moves as it is written

    def step() -> None:
        embeddings.grad = None
        if move is None:
            head(DualBatch(embeddings, labels, 0, len(labels), plan=None)).backward()
        else:
            head(embeddings, labels).backward()
            move(0.0)
        wait_for(device)

    return step


def _held(head: nn.Module) -> tuple[int, int]:
    """Bytes of rows, and of what goes with them: the optimizer's state. (Of a pool: `_whole`.)"""
    if isinstance(head, F2C):
        return head.pool.slot_rows.nbytes, 0
    buffers = dict(head.named_buffers())
    rows = max(buffers.values(), key=lambda tensor: tensor.nbytes).nbytes
    return rows, bytes_of(buffers.values()) - rows


@dataclass(frozen=True)
class ListCosts:
    """Of the lists of nearest classes: bytes held, bytes while some are made, seconds an update."""

    held: int
    making: int
    seconds: float | None


def _list_costs(
    config: Config, identities: int, *, device: torch.device, timed: bool
) -> ListCosts | None:
    """Measured against fewer classes: an update makes N / R lists, each out of all N classes."""
    if config.head.method != "partial" or config.head.sampler != "hard":
        return None
    with torch.device("meta"):
        real = build_sampler(config, identities)
    assert isinstance(real, HardNegatives)  # noqa: S101
    each_update = identities / real.refresh_steps
    few = min(identities, _LISTED)
    lists, count = min(few, ceil(each_update), CLASSES_AT_A_TIME), real.nearest.shape[1]
    if not timed:
        lists = 1 << (lists.bit_length() - 1)  # so that few copies are measured
        return ListCosts(real.nearest.nbytes, _making(config, few, lists, count, device), None)
    refresh = _refresh(config, few, lists, count=count, device=device)
    share = each_update / lists * identities / few
    return ListCosts(real.nearest.nbytes, live_bytes(refresh), seconds_of(refresh) * share)


@cache
def _making(config: Config, few: int, lists: int, count: int, device: torch.device) -> int:
    return live_bytes(_refresh(config, few, lists, count=count, device=device))


def _refresh(
    config: Config, identities: int, lists: int, *, count: int, device: torch.device
) -> Callable[[], None]:
    sub_centers = config.head.sub_centers
    centers = CenterTable(
        identities * sub_centers,
        config.backbone.embedding_size,
        seed=0,
        optimizer=RowSGD(),
        dtype=getattr(torch, config.head.dtype),
        device=device,
    )

    def refresh() -> None:
        some, found = slice(0, lists), min(count, identities - 1)
        nearest_classes(centers, some, count=found, sub_centers=sub_centers)
        wait_for(device)

    return refresh

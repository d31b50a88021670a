"""A small copy of the head of a recipe: the same code, fewer classes.

Bytes and seconds of a step grow with the active rows: one point is measured, with the recipe's
batch, and what the recipe's own takes is in proportion.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from manyface.train.build_model import build_f2c, build_head, build_sampler, num_slots

# Rows that a copy scores at most, and the least rate at which it samples them.
_MOST_ROWS, _LEAST_RATE = 2**16, 0.25
_COUNTED = 512  # images with which a copy runs where its bytes alone are asked for
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
    config: Config, identities: int, *, batch_size: int, device: torch.device, timed: bool
) -> HeadCosts:
    """Measured on a head of fewer classes, if there are many; bytes alone with fewer images too.

    Args:
        config: the recipe.
        identities: whose rows are on this rank.
        batch_size: embeddings that meet them, of all ranks.
        device: that computes.
        timed: whether to measure seconds.
    """
    active = active_rows(config, identities, batch_size=batch_size)
    small, few = _few_classes(config, identities, active)
    head = _build(small, few, device=device)
    images = batch_size if timed else min(batch_size, _COUNTED)
    scored = active_rows(small, few, batch_size=images)
    kept = _fit_kept(head, active, scored, batch_size=batch_size)
    step = _head_step(head, config, few, batch_size=images)
    step()
    stepping = _stepping(head, config, few, images).at(batch_size)
    share = identities / few
    rows, state = (int(part * share) for part in _held(head))
    return HeadCosts(
        rows=rows,
        state=state,
        stepping=int(stepping) + kept + _draw_bytes(config, active - scored),
        seconds=seconds_of(step) * active / scored if timed else None,
        active=active,
        moving=int((rows + state) * active / identities),
        lists=_list_costs(config, identities, device=device, timed=timed),
    )


def _stepping(head: nn.Module, config: Config, identities: int, images: int) -> Line:
    """Bytes alive in a step, by images."""

    def measured(images: int) -> float:
        return live_bytes(_head_step(head, config, identities, batch_size=images))

    return line_to(images, measured)


def _draw_bytes(config: Config, rows: int) -> int:
    """Arrays of ids while so many rows more are drawn."""
    return 5 * 8 * max(0, rows) if config.head.method == "partial" else 0


def active_rows(config: Config, identities: int, *, batch_size: int) -> int:
    """Rows that a step scores."""
    if config.head.method in WITHOUT_CENTERS:
        return num_slots(config, identities)
    if config.head.method == "full":
        return identities
    positives = min(batch_size, identities)
    return max(sample_size(identities, config.head.sample_rate), positives)


def _few_classes(config: Config, identities: int, active: int) -> tuple[Config, int]:
    """The recipe with as many identities as make `_MOST_ROWS` active, in blocks as in its own."""
    rate = max(active / identities, _LEAST_RATE)
    few = min(identities, int(_MOST_ROWS / rate))
    if config.head.method in WITHOUT_CENTERS:
        return changed(config, "pool", slots=max(1, int(few * rate)), ratio=None), few
    if config.head.method == "partial":  # with the same rate for any batch
        rate = rate if few < identities else active / identities
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
            head(DualBatch(embeddings, labels, 0, plan=None)).backward()
        else:
            head(embeddings, labels).backward()
            move(0.0)
        wait_for(device)

    return step


def _held(head: nn.Module) -> tuple[int, int]:
    """Bytes of rows, and of what goes with them: the optimizer's state, the pool's index."""
    if isinstance(head, F2C):
        index = 4 * head.num_identities + (4 + 1 + 8 + 8 + 13) * head.pool.num_slots
        return head.pool.rows.nbytes, index
    buffers = dict(head.named_buffers())
    rows = max(buffers.values(), key=lambda tensor: tensor.nbytes).nbytes
    return rows, bytes_of(buffers.values()) - rows


def _fit_kept(head: nn.Module, active: int, scored: int, *, batch_size: int) -> int:
    """Let a copy keep its numerators if the recipe's head does; bytes that the recipe's has more.

    Whether they are kept decides between three matrix products and four.
    """
    if not isinstance(head, CenterHead):
        return 0
    each = batch_size * head.sub_centers * (head.operands or head.centers.dtype).itemsize
    if active * each > head.kept_bytes:
        head.kept_bytes = 0
        return 0
    return (active - scored) * each


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
    few, lists = min(identities, _LISTED), min(identities, ceil(each_update), CLASSES_AT_A_TIME)
    refresh = _refresh(config, few, min(lists, few), count=real.nearest.shape[1], device=device)
    making = live_bytes(refresh)
    share = each_update / min(lists, few) * identities / few
    return ListCosts(real.nearest.nbytes, making, seconds_of(refresh) * share if timed else None)


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

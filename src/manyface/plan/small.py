"""Small copies of what a recipe would build: the same code, fewer classes, fewer images.

Bytes and seconds of a step grow with the images of a batch for the net: two points are measured on
a copy, and the recipe's own lies on the line through them. The head's grow with its active rows:
one point is measured, with the recipe's batch, and what it takes is in proportion.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from manyface.base.random import torch_generator
from manyface.centers import CenterTable, RowSGD
from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.data import Batch, DualBatch, GroupedSource
from manyface.heads import CenterHead
from manyface.heads.f2c import F2C
from manyface.heads.hard import CLASSES_AT_A_TIME, HardNegatives, nearest_classes
from manyface.heads.sampling import sample_size
from manyface.plan.live import live_bytes
from manyface.plan.prediction import Line
from manyface.train.build import build_loader
from manyface.train.build_model import (
    build_f2c,
    build_head,
    build_method,
    build_sampler,
    num_slots,
)
from manyface.train.devices import autocast_dtype
from manyface.train.method import Classification, PoolTraining
from manyface.train.step import FiniteGuard, train_step

Method = Classification | PoolTraining
_FEW = 8  # images of the first step
_PATIENCE = 1.5  # seconds for one step of a copy
_REPEATS, _LOADED = 5, 8
# Rows that a copy's head scores at most, and the least rate at which it samples them.
_MOST_ROWS, _LEAST_RATE = 2**16, 0.25
_COUNTED = 512  # images with which a head runs where its bytes alone are asked for
_LISTED = 2**13  # classes among which a copy looks for neighbours


def changed(config: Config, section: str, **values: Any) -> Config:
    """`config` with other values in one section."""
    old = getattr(config, section)
    return config.model_copy(update={section: old.model_copy(update=values)})


def placement(config: Config) -> str:
    """Where rows lie: a pool is on the device whatever a recipe says of class centers."""
    return "device" if config.head.method in WITHOUT_CENTERS else config.head.placement


# --- the net --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetCosts:
    """Of a step without its head: lines in the images of a batch.

    Attributes:
        activations: bytes alive at the end of the forward pass, beside what is held.
        seconds: of a step here; None where only bytes were asked for.
        held: weights, optimizer state, gallery net, averaged net.
        gradients: of the weights.
        exposed: seconds of an image by which a step with the loader is longer; None without data
            or seconds.
    """

    activations: Line
    seconds: Line | None
    held: int
    gradients: int
    exposed: float | None


def net_costs(
    config: Config, *, device: torch.device, timed: bool, source: GroupedSource | None = None
) -> NetCosts:
    """Bytes with few images; seconds with as many as our patience allows, and half of them.

    Args:
        config: the recipe.
        device: that computes.
        timed: whether to measure seconds.
        source: the data, where there are any, to time the loader's share.
    """
    method = _small_method(config, device=device)
    few = _step(config, method, _FEW)
    few()  # momentum is made, libraries warm up
    seconds, exposed = None, None
    if timed:
        images = _affordable(config, few)
        seconds = _line(images, lambda n: seconds_of(_step(config, method, n)))
        exposed = None if source is None else _exposed(config, method, source, images, seconds)
    activations = _line(_FEW, lambda images: _activation_bytes(config, method, images))
    weights = _bytes(method.net.parameters())
    copies = 1 + (method.averaged is not None) + isinstance(method, PoolTraining)
    held = copies * weights + _state_bytes(method.optimizer)
    return NetCosts(activations, seconds, held, weights, exposed)


def _affordable(config: Config, few: Callable[[], None]) -> int:
    """Images of a batch for our patience: even, no more than the recipe's."""
    images = max(_FEW, int(_FEW * _PATIENCE / seconds_of(few, repeats=1)))
    return min(config.train.batch_size, images) // 2 * 2


def _line(images: int, measured: Callable[[int], float]) -> Line:
    """Through what is measured with so many images, and with half of them."""
    fewer = max(2, images // 4 * 2)
    return Line.through((fewer, measured(fewer)), (images, measured(images)))


def _exposed(
    config: Config, method: Method, source: GroupedSource, images: int, alone: Line
) -> float:
    """Seconds of an image by which a step is longer while batches are made."""
    images = min(images, len(source) // 2 * 2)
    loaded = _seconds_with_loader(config, method, source, images)
    return max(0.0, loaded - alone.at(images)) / images


def _seconds_with_loader(
    config: Config, method: Method, source: GroupedSource, images: int
) -> float:
    """Of a step whose batches are made meanwhile, as in training, after the first ones."""
    small = changed(config, "train", batch_size=images)
    batches = build_loader(small, source, None).batches(0, _LOADED + 2)
    guard, people = FiniteGuard(method.device), 2 * max(_FEW, config.train.batch_size)

    def step() -> None:
        batch = next(batches)
        known = replace(batch, labels=batch.labels % people)  # the copy has fewer
        train_step(method, [known], step=0, factor=0.0, seed=0, guard=guard)
        _wait_for(method.device)

    seconds_of(step, repeats=2)
    return seconds_of(step, repeats=_LOADED)


def _activation_bytes(config: Config, method: Method, images: int) -> int:
    """Alive at the end of the forward pass, when there is most of it."""
    batch = _random_batch(config, method, images)
    method.begin_step()
    return live_bytes(lambda: method.loss(batch))


def _small_method(config: Config, *, device: torch.device) -> Method:
    identities = 2 * max(_FEW, config.train.batch_size)
    config = _with_few_classes(config, identities, batch_size=identities // 2)
    return build_method(
        config,
        identities,
        device=device,
        autocast=autocast_dtype(config.run.precision, device),
    )


def _with_few_classes(config: Config, identities: int, *, batch_size: int) -> Config:
    """With a pool of half of `identities`, enough for the batch."""
    pool = {"slots": identities // 2, "ratio": None}
    config = changed(changed(config, "pool", **pool), "train", batch_size=batch_size)
    return _in_memory(config)


def _in_memory(config: Config) -> Config:
    """Copies are small: they need no file, and know of no images or centers of their people."""
    followed = ("balanced", "hard")  # neighbours' lists are measured by themselves
    sampler = {"sampler": "uniform"} if config.head.sampler in followed else {}
    here = {"placement": "device", "placement_folder": None, "weights": None}
    return changed(config, "head", **here, **sampler)


def _step(config: Config, method: Method, images: int) -> Callable[[], None]:
    """A step with one batch of so many random images."""
    batch, guard = _random_batch(config, method, images), FiniteGuard(method.device)

    def step() -> None:
        train_step(method, [batch], step=0, factor=0.0, seed=0, guard=guard)
        _wait_for(method.device)

    return step


def _random_batch(config: Config, method: Method, images: int) -> Batch:
    """Pairs of people, each another; of an odd number one comes alone."""
    size = config.data.image_size
    pixels = torch.rand(images, 3, size, size, generator=torch_generator(0, "plan"))
    labels = torch.arange(images) % -(-images // 2)
    if isinstance(method, PoolTraining):
        return DualBatch(pixels, labels, 0, plan=None)
    return Batch(pixels, labels, 0)


# --- the head -------------------------------------------------------------------------------------


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

    return _line(images, measured)


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
    config = _in_memory(config)
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
        _wait_for(device)

    return step


def _held(head: nn.Module) -> tuple[int, int]:
    """Bytes of rows, and of what goes with them: the optimizer's state, the pool's index."""
    if isinstance(head, F2C):
        index = 4 * head.num_identities + (4 + 1 + 8 + 8 + 13) * head.pool.num_slots
        return head.pool.slot_rows.nbytes, index
    buffers = dict(head.named_buffers())
    rows = max(buffers.values(), key=lambda tensor: tensor.nbytes).nbytes
    return rows, _bytes(buffers.values()) - rows


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
        _wait_for(device)

    return refresh


# --- measuring ------------------------------------------------------------------------------------


def seconds_of(
    run: Callable[[], object],
    *,
    repeats: int = _REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Lower quartile, lest a moment in which the machine does something else decides; with
    `time.process_time` those of a processor, of all threads."""
    found = []
    for _ in range(repeats):
        start = clock()
        run()
        found.append(clock() - start)
    return sorted(found)[len(found) // 4]


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    states = (state.values() for state in optimizer.state.values())
    return _bytes(value for values in states for value in values if isinstance(value, Tensor))

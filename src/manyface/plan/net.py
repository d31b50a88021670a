"""A small copy of the net of a recipe: the same code, fewer classes, fewer images.

Bytes and seconds of a step grow with the images of a batch: two points are measured on the copy,
and the recipe's own lies on the line through them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from manyface.base.random import torch_generator
from manyface.config import Config
from manyface.data import Batch, DualBatch, GroupedSource
from manyface.plan.live import live_bytes
from manyface.plan.measuring import bytes_of, changed, in_memory, line_to, seconds_of, wait_for
from manyface.plan.prediction import Line
from manyface.train.build_data import build_loader
from manyface.train.build_model import build_method
from manyface.train.devices import autocast_dtype
from manyface.train.method import Classification, PoolTraining
from manyface.train.step import FiniteGuard, train_step

Method = Classification | PoolTraining
_FEW = 8  # images of the first step
_PATIENCE = 1.5  # seconds for one step of a copy
_LOADED = 8  # steps with the loader


@dataclass(frozen=True)
class NetCosts:
    """Of a step without its head: lines in the images of a batch.

    Attributes:
        activations: bytes alive at the end of the forward pass, beside what is held.
        seconds: of a step here; None where only bytes were asked for.
        held: weights, optimizer state, gallery net, averaged net.
        gradients: of the weights that learn.
        statistics: of batch norms, which ranks average.
        exposed: seconds of an image by which a step with the loader is longer; None without data
            or seconds.
    """

    activations: Line
    seconds: Line | None
    held: int
    gradients: int
    statistics: int
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
        seconds = line_to(images, lambda n: seconds_of(_step(config, method, n)))
        exposed = None if source is None else _exposed(config, method, source, images, seconds)
    activations = line_to(_FEW, lambda images: _activation_bytes(config, method, images))
    weights = bytes_of(method.net.parameters())
    copies = 1 + (method.averaged is not None) + isinstance(method, PoolTraining)
    held = copies * weights + _state_bytes(method.optimizer)
    gradients = bytes_of(each for each in method.net.parameters() if each.requires_grad)
    statistics = bytes_of(
        values
        for module in method.copied_modules()
        for name, values in module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    )
    return NetCosts(activations, seconds, held, gradients, statistics, exposed)


def _affordable(config: Config, few: Callable[[], None]) -> int:
    """Images of a batch for our patience: even, no more than the recipe's."""
    images = max(_FEW, int(_FEW * _PATIENCE / seconds_of(few, repeats=1)))
    return min(config.train.batch_size, images) // 2 * 2


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
        wait_for(method.device)

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
    return in_memory(config)


def _step(config: Config, method: Method, images: int) -> Callable[[], None]:
    """A step with one batch of so many random images."""
    batch, guard = _random_batch(config, method, images), FiniteGuard(method.device)

    def step() -> None:
        train_step(method, [batch], step=0, factor=0.0, seed=0, guard=guard)
        wait_for(method.device)

    return step


def _random_batch(config: Config, method: Method, images: int) -> Batch:
    """Pairs of people, each another; of an odd number one comes alone."""
    size = config.data.image_size
    pixels = torch.rand(images, 3, size, size, generator=torch_generator(0, "plan"))
    labels = torch.arange(images) % -(-images // 2)
    if isinstance(method, PoolTraining):
        return DualBatch(pixels, labels, 0, len(labels), plan=None)
    return Batch(pixels, labels, 0, len(labels))


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    states = (state.values() for state in optimizer.state.values())
    return bytes_of(value for values in states for value in values if isinstance(value, Tensor))

"""What the copies of net and head share: other recipes, seconds, lines."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.plan.prediction import Line

_REPEATS = 5


def changed(config: Config, section: str, **values: Any) -> Config:
    """`config` with other values in one section."""
    old = getattr(config, section)
    return config.model_copy(update={section: old.model_copy(update=values)})


def placement(config: Config) -> str:
    """Where rows lie: a pool is on the device whatever a recipe says of class centers."""
    return "device" if config.head.method in WITHOUT_CENTERS else config.head.placement


def in_memory(config: Config) -> Config:
    """Copies are small: they need no file, and know of no images or centers of their people."""
    followed = ("balanced", "hard")  # neighbours' lists are measured by themselves
    sampler = {"sampler": "uniform"} if config.head.sampler in followed else {}
    here = {"placement": "device", "placement_folder": None, "weights": None}
    return changed(config, "head", **here, **sampler)


def line_to(images: int, measured: Callable[[int], float]) -> Line:
    """Through what is measured with so many images, and with half of them."""
    fewer = max(2, images // 4 * 2)
    return Line.through((fewer, measured(fewer)), (images, measured(images)))


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


def wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)

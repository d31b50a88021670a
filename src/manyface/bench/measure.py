"""Time and memory of one method's steps, in this process, which should do nothing else.

Memory is the peak of anonymous + shared resident bytes (observe/memory.py) above what is held
before the first step, when rows, momentum and batch are resident and written; pages of files, the
program's own included, are counted apart. Time is that of the
steps after one warm-up, each with labels of its own; memory is watched in the warm-up and in one
more step at the end, and not while time is taken.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manyface.base.random import torch_generator
from manyface.bench.methods import find_method
from manyface.bench.shape import Shape
from manyface.observe.memory import (
    MemoryMeter,
    file_bytes,
    give_back_freed,
    resident_bytes,
)

PRODUCT_SIZE = 2048
_PRODUCT_REPEATS = 8


def measure(name: str, shape: Shape, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Figures of the method `name`; `report` is told what goes on."""
    torch.set_num_threads(shape.threads)
    method = find_method(name)
    report("building")
    run = method.build(shape)
    give_back_freed()
    before = resident_bytes()
    first, *others = _labels(shape)

    def step(labels: Tensor) -> tuple[float, float]:
        return _timed(run.plan, labels), _timed(run.step, labels)

    report("warming up")
    peak = _peak_of(step, first)
    plans: list[float] = []
    steps: list[float] = []
    for count, labels in enumerate(others, start=1):
        report(f"step {count} of {shape.steps}")
        for found, seconds in zip((plans, steps), step(labels), strict=True):
            found.append(seconds)
    peak = max(peak, _peak_of(step, first)) - before
    return {
        "step_seconds": spread(steps),
        **({"plan_seconds": spread(plans)} if method.plans else {}),
        "peak_extra_bytes": peak,
        "resident_bytes": before,
        "page_cache_bytes": file_bytes(),
        **run.figures(),
    }


def _peak_of(step: Callable[[Tensor], object], labels: Tensor) -> int:
    """Most resident bytes in a step, which is not timed: watching takes time."""
    with MemoryMeter(interval_seconds=0.002) as meter:
        step(labels)
        return meter.peak_bytes


def product_figures(name: str, shape: Shape) -> dict[str, Any]:
    """Dtype of the method's matrix products, and the rate of a large one."""
    dtype = find_method(name).product_dtype or shape.dtype
    return {"product_dtype": dtype, "product_flop_per_second": product_rate(dtype, shape.threads)}


def product_rate(dtype: str, threads: int) -> float:
    """Floating-point operations per second of the fastest 2048^3 matrix product."""
    torch.set_num_threads(threads)
    draw = torch_generator(0, "bench", "product")
    size = (PRODUCT_SIZE, PRODUCT_SIZE)
    one = torch.randn(size, generator=draw).to(getattr(torch, dtype))
    result = torch.empty_like(one)
    seconds = [_timed(lambda: torch.mm(one, one, out=result)) for _ in range(_PRODUCT_REPEATS)]
    return 2.0 * PRODUCT_SIZE**3 / min(seconds)


def _labels(shape: Shape) -> list[Tensor]:
    """Labels int64 [B] of every step, the warm-up's first."""
    draw = torch_generator(0, "bench", "labels")
    sizes = (shape.steps + 1, shape.batch)
    return list(torch.randint(shape.classes, sizes, generator=draw))


def _timed(function: Callable[..., object], *arguments: Tensor) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}

"""Methods side by side: each in a process of its own, if it fits, then in relation to one of them.

The figures of a method that ran:

    fits              true
    needed_bytes      most that its process should have at any time, computed before it ran
    active_rows       k: class centers, or slots of the pool, that an embedding is scored against
    step_seconds      median, min, max of forward + backward + update
    plan_seconds      the same of planning the slots, which a loader's thread does in training
    resident_bytes    held before the first step, the process itself included
    peak_extra_bytes  most that was held above that in any step
    products          matrix products [B, D] x [D, k] that loss and gradients need
    product_flop_per_second  rate of a 2048^3 product after its steps
    gemm_fraction     3 * 2 B k D / median step time / the best of these rates of all methods
    ratio             of this method to `against`: time (median), extra_memory (peak_extra_bytes)
                      and memory (resident_bytes + peak_extra_bytes)

One that does not fit has `fits` false, `needed_bytes`, `available_bytes`; one that died, `error`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from manyface.bench.measure import PRODUCT_SIZE
from manyface.bench.methods import find_method
from manyface.bench.process import MeasurementError, in_own_process
from manyface.bench.shape import Shape
from manyface.observe.available import available_bytes

Figures = dict[str, Any]
PRODUCTS = 3  # logits, gradient of the embeddings, gradient of the rows


@dataclass(frozen=True)
class Job:
    """`method` at `shape`, under a name of its own in tables and files."""

    name: str
    method: str
    shape: Shape

    def __post_init__(self) -> None:
        find_method(self.method).check(self.shape)


def compare(jobs: Sequence[Job], *, report: Callable[[str, str], None]) -> Figures:
    """Figures of all jobs, which share dtype and threads.

    Args:
        jobs: in the order in which they run.
        report: is told (name of a job, what it does).

    Returns:
        "methods" (name -> figures as above); "product" (size, flop_per_second), None if none ran.
    """
    methods = {job.name: _run(job, report) for job in jobs}
    rates = [each["product_flop_per_second"] for each in methods.values() if ran(each)]
    if not rates:
        return {"product": None, "methods": methods}
    _add_fractions(jobs, methods, max(rates))
    _add_ratios(methods, _reference(jobs, methods))
    return {"product": {"size": PRODUCT_SIZE, "flop_per_second": max(rates)}, "methods": methods}


def _run(job: Job, report: Callable[[str, str], None]) -> Figures:
    method = find_method(job.method)
    needed, available = method.needs(job.shape).total, available_bytes()
    if needed > available:
        report(job.name, "does not fit yet")
        return {"fits": False, "needed_bytes": needed, "available_bytes": available}
    start = {"fits": True, "needed_bytes": needed, "active_rows": method.active_rows(job.shape)}
    try:
        found = in_own_process(job.method, job.shape, report=lambda text: report(job.name, text))
    except MeasurementError as error:
        report(job.name, "died")
        return {**start, "error": str(error)}
    report(job.name, "done")
    return {**start, "products": PRODUCTS, **found}


def _add_fractions(jobs: Sequence[Job], methods: dict[str, Figures], rate: float) -> None:
    """Which share of a step the products that trained rows need would take at the best rate."""
    for job in jobs:
        if ran(figures := methods[job.name]):
            rows = figures["active_rows"]
            operations = PRODUCTS * 2 * job.shape.batch * rows * job.shape.dim
            seconds = figures["step_seconds"]["median"]
            figures["gemm_fraction"] = operations / seconds / rate


def ran(figures: Figures) -> bool:
    """Whether there are times and memory."""
    return "step_seconds" in figures


def _reference(jobs: Sequence[Job], methods: dict[str, Figures]) -> str:
    """Eager, or else the first, of those that ran; one has."""
    names = [job.name for job in jobs if ran(methods[job.name])]
    eager = [job.name for job in jobs if job.method == "eager" and job.name in names]
    return [*eager, *names][0]


def _add_ratios(methods: dict[str, Figures], against: str) -> None:
    reference = _costs(methods[against])
    for figures in methods.values():
        if ran(figures):
            costs = _costs(figures)
            shares = {key: costs[key] / reference[key] for key in costs}
            figures["ratio"] = {"against": against, **shares}


def _costs(figures: Figures) -> dict[str, float]:
    # Steps too small to show in whole pages count as one.
    extra = max(figures["peak_extra_bytes"], 4096)
    return {
        "time": figures["step_seconds"]["median"],
        "extra_memory": extra,
        "memory": figures["resident_bytes"] + extra,
    }

"""Methods side by side: each in a process of its own, if it fits, then in relation to one of them.

The figures of a method that ran:

    fits              true
    needed_bytes      most that its process should have at any time, computed before it ran
    active_rows       k: class centers, or slots of the pool, that an embedding is scored against
    step_seconds      median, min, max of forward + backward + update
    plan_seconds      the same of planning the slots, which a loader's thread does in training
    resident_bytes    held before the first step, the process itself included
    peak_extra_bytes  most that was held above that in any step
    page_cache_bytes  resident pages of files, torch's own included, in none of the above
    products          matrix products [B, D] x [D, k] that loss and gradients need
    product_dtype     dtype of these, bfloat16 under autocast
    product_flop_per_second  rate of a 2048^3 product of that dtype after its steps
    gemm_fraction     3 * 2 B k D / median step time / the best rate of that dtype of all methods
    ratio             rival -> of this method to that rival: time (median), extra_memory
                      (peak_extra_bytes), memory (resident_bytes + peak_extra_bytes)

What is a rival, bench/methods.py says; every one that ran is in `ratio`, and if none did, the first
method that ran. `against` is the one for a table.

One that does not fit has `fits` false, `needed_bytes`, `available_bytes`; one that died, `error`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from manyface.bench.measure import PRODUCT_SIZE
from manyface.bench.methods import check_method, find_method
from manyface.bench.process import DOES_NOT_FIT, Figures, figures_of
from manyface.bench.shape import Shape
from manyface.kernels import choose
from manyface.observe.available import available_bytes

PRODUCTS = 3  # logits, gradient of the embeddings, gradient of the rows


@dataclass(frozen=True)
class Job:
    """`method` at `shape`, under a name of its own in tables and files."""

    name: str
    method: str
    shape: Shape

    def __post_init__(self) -> None:
        check_method(self.method, self.shape)


def compare(jobs: Sequence[Job], *, report: Callable[[str, str], None]) -> Figures:
    """Figures of all jobs, which share dtype and threads.

    Args:
        jobs: in the order in which they run.
        report: is told (name of a job, what it does).

    Returns:
        "methods" (name -> figures as above); "product" (size, flop_per_second: dtype -> rate) and
        "against" (name), None if none ran; "kernels", what our heads run on.
    """
    methods = {job.name: _run(job, report) for job in jobs}
    rates = _best_rates(methods)
    if not rates:
        return {"product": None, "against": None, "kernels": None, "methods": methods}
    _add_fractions(jobs, methods, rates)
    rivals = _rivals(jobs, methods)
    _add_ratios(methods, [job.name for job in rivals])
    product = {"size": PRODUCT_SIZE, "flop_per_second": rates}
    against, kernels = _most_asked(rivals), str(choose(torch.device("cpu")))
    return {"product": product, "against": against, "kernels": kernels, "methods": methods}


def _run(job: Job, report: Callable[[str, str], None]) -> Figures:
    method = find_method(job.method)
    needed, available = method.needs(job.shape).total, available_bytes()
    if needed > available:
        report(job.name, DOES_NOT_FIT)
        return {"fits": False, "needed_bytes": needed, "available_bytes": available}
    start = {"fits": True, "needed_bytes": needed, "active_rows": method.active_rows(job.shape)}
    words = ("head", job.method, json.dumps(job.shape.as_dict()))
    return {**start, "products": PRODUCTS, **figures_of(job.name, words, report=report)}


def _best_rates(methods: dict[str, Figures]) -> dict[str, float]:
    """Best rate of a product, by dtype, over the methods that ran."""
    best: dict[str, float] = {}
    for each in filter(ran, methods.values()):
        dtype, rate = each["product_dtype"], each["product_flop_per_second"]
        best[dtype] = max(rate, best.get(dtype, 0.0))
    return best


def _add_fractions(
    jobs: Sequence[Job], methods: dict[str, Figures], rates: dict[str, float]
) -> None:
    """Which share of a step the products that trained rows need would take at the best rate."""
    for job in jobs:
        if ran(figures := methods[job.name]):
            rows = figures["active_rows"]
            operations = PRODUCTS * 2 * job.shape.batch * rows * job.shape.dim
            seconds, rate = figures["step_seconds"]["median"], rates[figures["product_dtype"]]
            figures["gemm_fraction"] = operations / seconds / rate


def ran(figures: Figures) -> bool:
    """Whether there are times and memory."""
    return "step_seconds" in figures


def _rivals(jobs: Sequence[Job], methods: dict[str, Figures]) -> list[Job]:
    """The rivals that ran, or else the first job that did; one has."""
    those = [job for job in jobs if ran(methods[job.name])]
    return [job for job in those if find_method(job.method).rival] or those[:1]


def _most_asked(rivals: Sequence[Job]) -> str:
    """The rival for a table: one that the user has named a checkout for, else eager, else any."""
    by_method = {job.method: job.name for job in rivals}
    asked = [by_method[name] for name in ("arcface_torch", "eager") if name in by_method]
    return [*asked, rivals[0].name][0]


def _add_ratios(methods: dict[str, Figures], rivals: Sequence[str]) -> None:
    references = {name: _costs(methods[name]) for name in rivals}
    for figures in filter(ran, methods.values()):
        costs = _costs(figures)
        figures["ratio"] = {
            name: {key: costs[key] / reference[key] for key in costs}
            for name, reference in references.items()
        }


def _costs(figures: Figures) -> dict[str, float]:
    # Steps too small to show in whole pages count as one.
    extra = max(figures["peak_extra_bytes"], 4096)
    return {
        "time": figures["step_seconds"]["median"],
        "extra_memory": extra,
        "memory": figures["resident_bytes"] + extra,
    }

"""What a step of each head costs, from few identities to more than fit: measured, and planned.

Every (method, number of identities) is measured in a process of its own (`bench/side_by_side.py`)
and kept, so that the study stops and goes on; what does not fit into the memory that is available
is entered with the bytes that it would take. Beside the time measured stands what `manyface plan`
says of it, from a copy of few rows.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from manyface.base.errors import DataError
from manyface.bench import Job, Shape, compare
from manyface.config import parse_config
from manyface.plan.head import head_costs
from manyface.report.document import write_page

Figures = dict[str, Any]
Report = Callable[[str], None]
BATCH, DIM, STEPS = 128, 512, 5
# Name in tables -> method of bench/methods.py, slots of a pool per identity, recipe of the planner.
METHODS: dict[str, tuple[str, float, tuple[str, ...] | None]] = {
    "full FC": ("full", 0.1, ()),
    "Partial FC 0.1": ("partial", 0.1, ("head.sample_rate=0.1",)),
    "Partial FC 0.1, bfloat16": (
        "partial_bf16", 0.1, ("head.sample_rate=0.1", "head.dtype=bfloat16"),
    ),
    "F2C 10 %": ("f2c", 0.1, ("head.method=f2c", "pool.ratio=0.1")),
    "F2C 1 %": ("f2c", 0.01, ("head.method=f2c", "pool.ratio=0.01")),
    "PartialFC_V2 (insightface)": ("arcface_torch", 0.1, None),
    "Partial FC of 2020": ("partial_fc_2020", 0.1, None),
    "data-parallel FC (plain torch)": ("eager", 0.1, None),
}  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """costs.json: "method at N identities" -> figures, written after each measurement."""

    path: Path
    figures: dict[str, Figures] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> "Costs":
        """What has been measured; DataError if the file is no such thing."""
        if not path.exists():
            return Costs(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["figures"]
            if not isinstance(found, dict):
                raise ValueError(f"figures are a {type(found).__name__}, expected a table")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no costs: {error}; move it away") from error
        return Costs(path, found)

    def of(self, name: str, classes: int) -> Figures | None:
        """The figures of a method, if it was measured."""
        return self.figures.get(_key(name, classes))

    def add(self, name: str, classes: int, found: Figures) -> None:
        """Keep them."""
        self.figures[_key(name, classes)] = found
        text = json.dumps({"figures": self.figures}, indent=1)
        write_page(text + "\n", self.path)


def _key(name: str, classes: int) -> str:
    return f"{name} at {classes}"


def measure(
    costs: Costs, classes: Sequence[int], *, threads: int, checkout: Path | None, report: Report
) -> None:
    """Measure what is missing of every method at each number of identities.

    Args:
        threads: of torch.
        checkout: folder of insightface's code; without it, its method is left out.
        report: is told what goes on.
    """
    for name, size in _missing(costs, classes, checkout=checkout):
        report(f"{name} at {size:,} identities")
        costs.add(name, size, _measured(name, _shape(name, size, threads, checkout)))


def _missing(
    costs: Costs, classes: Sequence[int], *, checkout: Path | None
) -> Iterator[tuple[str, int]]:
    for size in classes:
        for name, (method, _, _) in METHODS.items():
            if method == "arcface_torch" and checkout is None:
                continue
            found = costs.of(name, size)
            if found is None or found.get("error"):  # that it died may have been of its day
                yield name, size


def _shape(name: str, size: int, threads: int, checkout: Path | None) -> Shape:
    """With a small pool a batch of at most as many images as there are slots."""
    found = Shape(
        classes=size, batch=BATCH, dim=DIM, steps=STEPS, threads=threads,
        checkout=None if checkout is None else str(checkout),
    )  # fmt: skip
    return replace(found, pool_ratio=METHODS[name][1])


def _measured(name: str, shape: Shape) -> Figures:
    method, _, recipe = METHODS[name]
    found: Figures = compare([Job(name, method, shape)], report=lambda *_: None)["methods"][name]
    if recipe is not None:
        found["planned_seconds"] = _planned(recipe, shape)
    return found


def _planned(recipe: tuple[str, ...], shape: Shape) -> float | None:
    """Seconds of the head's step as the planner has them."""
    config = parse_config(
        "",
        [*recipe, f"backbone.embedding_size={shape.dim}", f"train.batch_size={shape.batch}"],
        source="the study of costs",
    )
    return head_costs(
        config, shape.classes, batch_size=shape.batch, device=torch.device("cpu"), timed=True
    ).seconds

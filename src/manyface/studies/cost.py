"""What a step of each head costs, from few identities to more than fit: measured, and planned.

Every (method, number of identities) is measured in a process of its own (`bench/side_by_side.py`)
and kept, so that the study stops and goes on; what does not fit into the memory that is available
is entered with the bytes that it would take. Beside the time measured stands what `manyface plan`
says of it, from a copy of few rows. Each says where it was measured, and a file is of one machine.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import FiniteFloat, PositiveInt, StringConstraints, model_validator

from manyface.base.errors import ConfigError, DataError
from manyface.bench import Job, Shape, compare
from manyface.bench.arcface_torch import find_folder
from manyface.config import parse_config
from manyface.observe.provenance import processor, provenance
from manyface.plan.head import head_costs
from manyface.report.document import write_page
from manyface.studies.kept import Count, Kept, Positive, read_kept

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


class _Spread(Kept):
    median: Positive
    min: Positive
    max: Positive


class _Measured(Kept):
    """Where and when; files of before it was kept lack it."""

    device: str
    threads: PositiveInt
    date: str
    commit: str | None
    torch: str


class _Figures(Kept):
    """Figures of a method, as far as pages are made of them."""

    fits: bool
    needed_bytes: Count
    error: str | None = None
    step_seconds: _Spread | None = None
    resident_bytes: Count | None = None
    peak_extra_bytes: int | None = None
    planned_seconds: FiniteFloat | None = None
    checkout: str | None = None
    measured: _Measured | None = None

    @model_validator(mode="after")
    def _what_ran_has_time_and_memory(self) -> Self:
        found = (self.step_seconds, self.resident_bytes, self.peak_extra_bytes)
        if self.fits and self.error is None and None in found:
            raise ValueError("it ran, so expected step_seconds, resident_bytes, peak_extra_bytes")
        return self


class _File(Kept):
    figures: dict[Annotated[str, StringConstraints(pattern=r"^.+ at [0-9]+$")], _Figures]


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
        return Costs(path, read_kept(path, _File, what="costs of heads", part="method")["figures"])

    @property
    def checkout(self) -> Path | None:
        """Folder of insightface's code, if its method was measured."""
        found = [each["checkout"] for each in self.figures.values() if each.get("checkout")]
        return Path(found[0]) if found else None

    def check_machine(self, threads: int) -> None:
        """DataError if figures are of another processor, or of other `threads` of torch."""
        for each in self.figures.values():
            at = each.get("measured")
            if (
                at
                and not each.get("error")
                and (at["device"], at["threads"]) != (processor(), threads)
            ):
                raise DataError(
                    f"{self.path} is of {at['device']}, {at['threads']} threads, and this is "
                    f"{processor()}, {threads} threads: one table would compare the machines; "
                    "complete it there, or take another folder with -d"
                )

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

    Raises:
        DataError: some is missing of what was begun on another machine.
    """
    todo, measured = list(_missing(costs, classes, checkout=checkout)), provenance()
    if todo:
        costs.check_machine(threads)
    for name, size in todo:
        report(f"{name} at {size:,} identities")
        found = _measured(name, _shape(name, size, threads, checkout))
        costs.add(name, size, {**found, "measured": {**measured, "threads": threads}})


def check_checkout(checkout: Path) -> None:
    """ConfigError if insightface's head is not in it."""
    try:
        find_folder(str(checkout))
    except ConfigError as error:
        raise ConfigError(
            f"--checkout {checkout}: expected a folder with insightface's code, in which "
            "recognition/arcface_torch holds partial_fc_v2.py and losses.py"
        ) from error


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

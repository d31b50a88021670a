"""Runs: a cell in a seed, as a recipe, and the digest by which equal recipes are one run."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from manyface.config import Config, parse_config
from manyface.config.head import WITHOUT_CENTERS
from manyface.studies.cells import Cell, Scale, Study, Table

# Where a run lies and what is kept of it on the way: nothing that it learns.
_NO_MATTER = {
    "data": ("path", "threads"),
    "train": ("checkpoint_every", "checkpoint_minutes", "keep", "log_every", "tensorboard"),
}
# Defaults that were others when ledgers began, as they were then.
FIRST_DEFAULTS: Mapping[str, Mapping[str, object]] = {"optimizer": {"learning_rate": 0.1}}


@dataclass(frozen=True)
class Job:
    """The run of a cell in a seed.

    Attributes:
        cell: its name and changes.
        seed: of the run.
        recipe: text of the recipe that it changes.
        data: overrides that say where photos are; they are no part of what is learned.
        photos: name of their set, where one recipe is trained on several.
        looks: what is measured of the finished run besides its scores.
    """

    cell: Cell
    seed: int
    recipe: str
    data: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    photos: str = ""

    @property
    def name(self) -> str:
        """Of its folder."""
        words = "".join(c if c.isalnum() or c == "." else "-" for c in self.cell.name.lower())
        return f"{words.strip('-')}-s{self.seed}-{self.digest}"

    def overrides(self) -> tuple[str, ...]:
        """What its recipe has besides the text."""
        return (*self.cell.changes, *self.data, f"run.seed={self.seed}")

    @cached_property
    def config(self) -> Config:
        """Its recipe; ConfigError where the cell cannot be."""
        return parse_config(self.recipe, self.overrides(), source=self.cell.name)

    @cached_property
    def digest(self) -> str:
        """Of all that the run learns from. What has its first default is left out, so that a new
        key of a recipe leaves old runs what they are, and another default does not."""
        table = _without_first_defaults(self.config)
        if self.config.head.method in WITHOUT_CENTERS:
            table["pool"] = self.config.pool.model_dump(mode="json")
        table["run"] = {"seed": self.seed}
        if self.photos:
            table["photos"] = self.photos
        for section, keys in _NO_MATTER.items():
            for key in keys:
                table.get(section, {}).pop(key, None)
        text = json.dumps(table, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_first_defaults(config: Config) -> dict[str, Any]:
    table = config.model_dump(mode="json", exclude_defaults=True)
    for section, keys in FIRST_DEFAULTS.items():
        kept = table.setdefault(section, {})
        for key, first in keys.items():
            kept[key] = getattr(getattr(config, section), key)
            if kept[key] == first:
                del kept[key]
        if not kept:
            del table[section]
    return table


def jobs_of(
    table: Table, scale: Scale, *, data: Path | None = None, looks: tuple[str, ...] = ()
) -> list[Job]:
    """The runs of a table, seed by seed; `data` is where photos on disk are."""
    recipe, below = scale.recipes[table.recipe], scale.photos.get(table.recipe)
    photos = () if below is None or data is None else (f"data.path={(data / below).resolve()}",)
    cells = table.cells[: scale.cells]
    most = max(cell.seeds or scale.seeds for cell in cells)
    return [
        Job(cell, seed, recipe, photos, looks, below or "")
        for seed in range(most)
        for cell in cells
        if seed < (cell.seeds or scale.seeds)
    ]


def jobs_of_study(study: Study, scale: Scale, *, data: Path | None = None) -> Iterator[Job]:
    """The runs of all tables that there are photos for."""
    for table in tables_here(study, scale, data=data):
        yield from jobs_of(table, scale, data=data, looks=study.looks)


def tables_here(study: Study, scale: Scale, *, data: Path | None) -> list[Table]:
    """The tables of synthetic faces, and those of photos that are there."""

    def is_here(table: Table) -> bool:
        below = scale.photos.get(table.recipe)
        return below is None or (data is not None and (data / below).exists())

    return [table for table in study.tables if is_here(table)]

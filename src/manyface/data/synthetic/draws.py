"""Records of random numbers: fields say how they are distributed, `draw` fills a whole batch.

A record is a pure function of (seed, counter): field k of the record with counter c comes from the
hash of c * 512 + 3 k. So a field appended at the end of a record leaves all earlier ones as they
were. A bell is the sum of three uniforms (Irwin-Hall): bounded to 3 standard deviations, and made
of additions only, so that every machine gets the same bits.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.random import hash_uniform

Floats = npt.NDArray[np.float32]

COLUMNS_PER_RECORD = 512
_COLUMNS_PER_FIELD = 3


def bell(mean: float, spread: float, group: str) -> Any:
    """A field around `mean` with standard deviation `spread` times the scale of its group."""
    return field(metadata={"bell": (mean, spread), "group": group})


def uniform(low: float = 0.0, high: float = 1.0) -> Any:
    """A field that is uniform in [low, high) at any difficulty."""
    return field(metadata={"uniform": (low, high)})


@dataclass(frozen=True)
class Record:
    """The first field is the table; each further one of a subclass names one of its rows."""

    table: Tensor  # [F, B, 1, 1]


R = TypeVar("R", bound=Record)


def draw(
    record: type[R],
    *,
    seed: int,
    counters: npt.NDArray[np.int64],
    scales: Mapping[str, float],
) -> R:
    """One record for each counter `[B]`; every field is float32 `[B, 1, 1]`."""
    specs = fields(record)[1:]
    columns = np.arange(len(specs) * _COLUMNS_PER_FIELD, dtype=np.uint64)[:, None]
    grid = counters.astype(np.uint64) * np.uint64(COLUMNS_PER_RECORD) + columns
    uniforms = hash_uniform(seed, grid).reshape(len(specs), _COLUMNS_PER_FIELD, len(counters))
    total = uniforms[:, 0] + uniforms[:, 1] + uniforms[:, 2] - np.float32(1.5)  # variance 1/4
    is_bell = np.array(["bell" in spec.metadata for spec in specs])[:, None]
    offset, factor = np.array([_affine(spec, scales) for spec in specs], np.float32).T
    table = np.where(is_bell, total, uniforms[:, 0]) * factor[:, None] + offset[:, None]
    return from_table(record, torch.from_numpy(table)[:, :, None, None])


def from_table(record: type[R], table: Tensor) -> R:
    """The record whose fields are the rows of `[F, B, 1, 1]`."""
    return record(table, *table.unbind())


def _affine(spec: "Field[Any]", scales: Mapping[str, float]) -> tuple[float, float]:
    """Offset and factor from the raw draw to the field's unit."""
    if "uniform" in spec.metadata:
        low, high = spec.metadata["uniform"]
        return low, high - low
    mean, spread = spec.metadata["bell"]
    return mean, 2.0 * spread * scales[spec.metadata["group"]]

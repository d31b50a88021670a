"""The sizes of a step that is measured, and what a method says of itself before it runs."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE

# Of a process before it has made anything: interpreter, torch, buffers of its matrix products.
PROCESS_BYTES = 272 * 2**20
_COUNTS = ("classes", "batch", "dim", "steps", "threads", "chunk_size")
_SHARES = ("sample_rate", "pool_ratio")
_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Shape:
    """One step.

    Attributes:
        classes: N, number of identities.
        batch: B, distinct images of a step.
        dim: D, length of an embedding.
        sample_rate: share of the classes that Partial FC scores.
        pool_ratio: slots of F2C's pool per identity.
        steps: measured, after one that is not.
        threads: of torch.
        chunk_size: classes per chunk of the streamed softmax.
        momentum: of the library's class centers; 0 keeps none. Rivals have theirs.
        dtype: "float32" or "float64", of everything but the methods named after another.
        checkout: folder of insightface's code, for the methods that run it.
        files: folder for rows in files, for the method that has them there.

    Raises:
        ConfigError: a size or share that no step can have.
    """

    classes: int = 100_000
    batch: int = 128
    dim: int = 512
    sample_rate: float = 0.1
    pool_ratio: float = 0.1
    steps: int = 5
    threads: int = 1
    chunk_size: int = DEFAULT_CHUNK_SIZE
    momentum: float = 0.9
    dtype: str = "float32"
    checkout: str | None = None
    files: str | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in _SHARES:
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"{name} must be above 0 and at most 1, got {getattr(self, name)}"
                )
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum must be at least 0 and below 1, got {self.momentum}")
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {self.dtype!r}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch names it."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @property
    def number_bytes(self) -> int:
        """Bytes of one number."""
        return self.torch_dtype.itemsize

    @property
    def slots(self) -> int:
        """Q, slots of F2C's pool: at least one."""
        return max(1, int(self.pool_ratio * self.classes + 1e-9))

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Needs:
    """Bytes a method needs beyond PROCESS_BYTES, computed.

    Attributes:
        held: rows, momentum, tables, from one step to the next.
        building: on top, while they are made.
        stepping: on top, while a step runs.
    """

    held: int
    building: int
    stepping: int

    @property
    def total(self) -> int:
        """The most that the process has at any time."""
        return PROCESS_BYTES + self.held + max(self.building, self.stepping)


class Run(Protocol):
    """A method that is ready to step: every row and momentum is there and written."""

    def plan(self, labels: Tensor) -> None:
        """What a loader's thread does ahead of a step, for labels int64 [B]."""

    def step(self, labels: Tensor) -> None:
        """Forward, backward, update."""

    def figures(self) -> dict[str, Any]:
        """What there is to say besides time and memory."""

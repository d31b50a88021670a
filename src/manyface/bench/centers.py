"""The library's heads with class centers: full and Partial FC."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manyface.base.numeric import working_dtype
from manyface.base.random import torch_generator
from manyface.bench.shape import Needs, Shape
from manyface.centers import InFiles
from manyface.centers.table import DRAWN_ROWS
from manyface.heads import CenterHead, FullFC, PartialFC
from manyface.heads.base import HeadOptions
from manyface.heads.sampling import sample_size
from manyface.margins import CosFace
from manyface.softmax.streamed import DEFAULT_KEPT_BYTES

MARGIN = CosFace(0.4)
LEARNING_RATE = 0.1


def random_embeddings(shape: Shape, name: str, count: int) -> Tensor:
    """Embeddings [count, D] that a net could have given."""
    draw = torch_generator(0, "bench", name)
    return torch.randn(count, shape.dim, generator=draw, dtype=shape.torch_dtype)


class HeadRun:
    """A head of the library: `backward` finishes the embedding gradient, `step` moves the rows."""

    def __init__(self, head: CenterHead, shape: Shape) -> None:
        self._head = head
        self._embeddings = random_embeddings(shape, "embeddings", shape.batch).requires_grad_()
        for state in head.centers.state_of_rows().values():
            state.fill_(0)  # written, so that its pages are resident
        self.folder: object = None  # kept as long as the head, if it lies in files

    def plan(self, labels: Tensor) -> None:
        """Nothing."""

    def step(self, labels: Tensor) -> None:
        """As in a training loop."""
        self._embeddings.grad = None
        self._head(self._embeddings, labels).backward()
        self._head.step(LEARNING_RATE)

    def figures(self) -> dict[str, Any]:
        """Nothing."""
        return {}


def build_full(shape: Shape, dtype: torch.dtype | None = None) -> HeadRun:
    """Full FC, streamed; rows in `dtype`, or that of the shape."""
    options = _options(shape, dtype)
    return HeadRun(
        FullFC(num_classes=shape.classes, dim=shape.dim, margin=MARGIN, **options), shape
    )


def build_partial(shape: Shape, dtype: torch.dtype | None = None) -> HeadRun:
    """Partial FC at the sample rate; rows in `dtype`, or that of the shape."""
    head = PartialFC(
        num_classes=shape.classes,
        dim=shape.dim,
        margin=MARGIN,
        sample_rate=shape.sample_rate,
        **_options(shape, dtype),
    )
    return HeadRun(head, shape)


def build_partial_files(shape: Shape) -> HeadRun:
    """Partial FC with rows in bfloat16, in files that go when it does."""
    folder = tempfile.TemporaryDirectory(prefix="manyface-rows-", dir=shape.files)
    options = _options(shape, torch.bfloat16)
    options["place"] = InFiles(Path(folder.name) / "rows")
    head = PartialFC(
        num_classes=shape.classes,
        dim=shape.dim,
        margin=MARGIN,
        sample_rate=shape.sample_rate,
        **options,
    )
    run = HeadRun(head, shape)
    run.folder = folder
    os.sync()  # the disk has taken what building has written, and is free for steps
    return run


def no_files(shape: Shape) -> str | None:
    """Why it cannot run: nobody has said where files may be."""
    return None if shape.files else "partial_bf16_files writes all rows: name a folder, --files DIR"


def files_needs(shape: Shape) -> Needs:
    """Memory as of `partial`, but for the rows and their momentum."""
    needs = partial_needs(shape, torch.bfloat16)
    return Needs(0, needs.building, needs.stepping)


def full_rows(shape: Shape) -> int:
    """Rows of a step: all."""
    return shape.classes


def partial_rows(shape: Shape) -> int:
    """Rows of a step: the sample, or the batch's classes where these are more."""
    at_least = min(shape.batch, shape.classes)
    return max(sample_size(shape.classes, shape.sample_rate), at_least)


def build_bytes(shape: Shape) -> int:
    """While rows are drawn: three copies of some of them in each thread."""
    return 3 * 4 * DRAWN_ROWS * shape.dim * shape.threads


def full_needs(shape: Shape, dtype: torch.dtype | None = None) -> Needs:
    """Rows and momentum; a chunk at a time, and the numerators if they are kept."""
    stepping = streamed_bytes(shape, dtype) + _kept_bytes(shape, shape.classes, dtype)
    return Needs(_held(shape, dtype), build_bytes(shape), stepping)


def partial_needs(shape: Shape, dtype: torch.dtype | None = None) -> Needs:
    """The same, and the draw: some arrays of 8 bytes per sampled class."""
    rows = partial_rows(shape)
    stepping = streamed_bytes(shape, dtype) + _kept_bytes(shape, rows, dtype) + 5 * 8 * rows
    return Needs(_held(shape, dtype), build_bytes(shape), stepping)


def streamed_bytes(shape: Shape, dtype: torch.dtype | None = None) -> int:
    """Temporaries of the streamed softmax: numerators [B, n], copies of a chunk's rows [n, D]."""
    chunk = min(shape.chunk_size, shape.classes)
    numbers = chunk * (shape.batch + 6 * shape.dim) + 8 * shape.batch * shape.dim
    return numbers * working_dtype(dtype or shape.torch_dtype).itemsize


def table_bytes(shape: Shape, dtype: torch.dtype | None = None, *, momentum: bool = True) -> int:
    """Rows [N, D], and their momentum [N, D]."""
    return (1 + momentum) * shape.classes * shape.dim * (dtype or shape.torch_dtype).itemsize


def _held(shape: Shape, dtype: torch.dtype | None) -> int:
    return table_bytes(shape, dtype, momentum=shape.momentum > 0)


def _kept_bytes(shape: Shape, rows: int, dtype: torch.dtype | None) -> int:
    bytes_ = shape.batch * rows * (dtype or shape.torch_dtype).itemsize
    return bytes_ if bytes_ <= DEFAULT_KEPT_BYTES else 0


def _options(shape: Shape, dtype: torch.dtype | None) -> HeadOptions:
    return {
        "chunk_size": shape.chunk_size,
        "dtype": dtype or shape.torch_dtype,
        "momentum": shape.momentum,
    }

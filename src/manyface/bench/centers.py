"""The library's heads with class centers: full and Partial FC."""

from typing import Any

import torch
from torch import Tensor

from manyface.base.random import torch_generator
from manyface.bench.shape import Needs, Shape
from manyface.heads import CenterHead, FullFC, PartialFC
from manyface.heads.base import HeadOptions
from manyface.heads.sampling import sample_size
from manyface.margins import CosFace

MARGIN = CosFace(0.4)
LEARNING_RATE = 0.1
# Bytes per dimension: rows are drawn 16,384 at a time, in three copies (centers/table.py).
DRAW_BYTES = 3 * 4 * 16_384


def random_embeddings(shape: Shape, name: str, count: int) -> Tensor:
    """Embeddings [count, D] that a net could have given."""
    draw = torch_generator(0, "bench", name)
    return torch.randn(count, shape.dim, generator=draw, dtype=shape.torch_dtype)


class HeadRun:
    """A head of the library: `backward` finishes the embedding gradient, `step` moves the rows."""

    def __init__(self, head: CenterHead, shape: Shape) -> None:
        self._head = head
        self._embeddings = random_embeddings(shape, "embeddings", shape.batch).requires_grad_()
        head.centers.velocity.fill_(0.0)  # written, so that its pages are resident

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


def build_full(shape: Shape) -> HeadRun:
    """Full FC, streamed."""
    return HeadRun(
        FullFC(num_classes=shape.classes, dim=shape.dim, margin=MARGIN, **_options(shape)), shape
    )


def build_partial(shape: Shape) -> HeadRun:
    """Partial FC at the sample rate."""
    head = PartialFC(
        num_classes=shape.classes,
        dim=shape.dim,
        margin=MARGIN,
        sample_rate=shape.sample_rate,
        **_options(shape),
    )
    return HeadRun(head, shape)


def full_rows(shape: Shape) -> int:
    """Rows of a step: all."""
    return shape.classes


def partial_rows(shape: Shape) -> int:
    """Rows of a step: the sample, or the batch's classes where these are more."""
    at_least = min(shape.batch, shape.classes)
    return max(sample_size(shape.classes, shape.sample_rate), at_least)


def full_needs(shape: Shape) -> Needs:
    """Rows and momentum; a chunk at a time."""
    return Needs(table_bytes(shape), DRAW_BYTES * shape.dim, streamed_bytes(shape))


def partial_needs(shape: Shape) -> Needs:
    """The same, and the draw: some arrays of 8 bytes per sampled class."""
    draw = 5 * 8 * partial_rows(shape)
    return Needs(table_bytes(shape), DRAW_BYTES * shape.dim, streamed_bytes(shape) + draw)


def streamed_bytes(shape: Shape) -> int:
    """Temporaries of the streamed softmax: numerators [B, n], copies of a chunk's rows [n, D]."""
    chunk = min(shape.chunk_size, shape.classes)
    numbers = chunk * (shape.batch + 6 * shape.dim) + 8 * shape.batch * shape.dim
    return numbers * shape.number_bytes


def table_bytes(shape: Shape) -> int:
    """Rows and momentum [N, D]."""
    return 2 * shape.classes * shape.dim * shape.number_bytes


def _options(shape: Shape) -> HeadOptions:
    return {"chunk_size": shape.chunk_size, "dtype": shape.torch_dtype}

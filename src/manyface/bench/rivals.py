"""What the library's heads are measured against and torch alone can make: eager, 2020, fused.

All are plain autograd with `torch.optim.SGD`, momentum and weight decay as the library's. The 2020
method is written from its description (arXiv 2010.05222, sec. 3): rows and momentum are buffers, a
step gathers those of the sampled classes, trains them by themselves and writes them back.
`linear_cross_entropy` is torch's own for a last layer; it knows no margin, so it is a plain cosine
softmax: the same products, less to do at the target.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from manyface.base.numeric import unit_rows
from manyface.base.random import torch_generator
from manyface.bench.centers import (
    LEARNING_RATE,
    MARGIN,
    build_bytes,
    partial_rows,
    random_embeddings,
    table_bytes,
)
from manyface.bench.shape import Needs, Shape
from manyface.centers import CenterTable, RowSGD
from manyface.softmax import dense_margin_softmax

SCALE = 64.0
# Images per chunk of linear_cross_entropy. Its own choice is one image (50,000 classes and more),
# each with a pass over all rows and their gradient: tens of times slower.
_CHUNK_IMAGES = 16
# Larger blocks go back to the system when they are freed (M_MMAP_THRESHOLD at its largest).
_KEPT_BELOW = 32 * 2**20
Loss = Callable[[Tensor, Tensor], Tensor]


class DenseRun:
    """A loss of all rows with autograd; `torch.optim.SGD` moves all rows in every step.

    Args:
        shape: of the step.
        rows: [N, D].
        loss: (embeddings [B, D], labels int64 [B]) -> scalar.
        said: what there is to say besides time and memory.
    """

    def __init__(
        self,
        shape: Shape,
        rows: torch.nn.Parameter,
        loss: Loss,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        self._rows, self._loss, self._said = rows, loss, dict(said or {})
        # Written, so that its pages are resident.
        self._optimizer = momentum_sgd(rows, torch.empty_like(rows, requires_grad=False).zero_())
        self._embeddings = random_embeddings(shape, "embeddings", shape.batch).requires_grad_()

    def plan(self, labels: Tensor) -> None:
        """Nothing."""

    def step(self, labels: Tensor) -> None:
        """As in a training loop."""
        self._embeddings.grad = None
        self._loss(self._embeddings, labels).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()

    def figures(self) -> dict[str, Any]:
        """What was given."""
        return self._said


class RowSparseRun:
    """Partial FC of 2020: sampled rows and their momentum gathered, trained, written back."""

    def __init__(self, shape: Shape) -> None:
        table = _table(shape)
        self._rows, self._velocity = table.weight, table.velocity.fill_(0.0)
        self._size = partial_rows(shape)
        self._draw = torch_generator(0, "bench", "sample")
        # One optimizer for all steps, which takes on the sample of each.
        self._optimizer = momentum_sgd(torch.nn.Parameter(self._rows[:1]), self._velocity[:1])
        self._embeddings = random_embeddings(shape, "embeddings", shape.batch).requires_grad_()

    def plan(self, labels: Tensor) -> None:
        """Nothing."""

    def step(self, labels: Tensor) -> None:
        """Sample, gather, loss and update of the sample, write back."""
        ids = self._sample(labels)
        active, velocity = torch.nn.Parameter(self._rows[ids]), self._velocity[ids]
        self._optimizer.param_groups[0]["params"] = [active]
        self._optimizer.state.clear()
        self._optimizer.state[active]["momentum_buffer"] = velocity
        self._embeddings.grad = None
        targets = torch.searchsorted(ids, labels)
        _margin_loss(self._embeddings, active, targets).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._rows[ids] = active.detach()
        self._velocity[ids] = velocity

    def figures(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def _sample(self, labels: Tensor) -> Tensor:
        """Sorted ids int64 [k]: those with the largest of N random numbers, the batch's first."""
        scores = torch.rand(len(self._rows), generator=self._draw)
        scores[labels] = 2.0
        return scores.topk(self._size).indices.sort().values


def momentum_sgd(rows: torch.nn.Parameter, velocity: Tensor) -> torch.optim.Optimizer:
    """SGD of `rows` that goes on with the momentum `velocity`, same shape, updated in place."""
    rule = RowSGD()
    optimizer = torch.optim.SGD(
        [rows], lr=LEARNING_RATE, momentum=rule.momentum, weight_decay=rule.weight_decay
    )
    optimizer.state[rows]["momentum_buffer"] = velocity
    return optimizer


def build_eager(shape: Shape) -> DenseRun:
    """The loss as the papers write it, all logits in memory."""
    rows = torch.nn.Parameter(_table(shape).weight)
    return DenseRun(shape, rows, lambda embeddings, labels: _margin_loss(embeddings, rows, labels))


def build_linear_cross_entropy(shape: Shape) -> DenseRun:
    """`torch.nn.functional.linear_cross_entropy` of unit rows, 16 images at a time."""
    rows = torch.nn.Parameter(_table(shape).weight)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=min(_CHUNK_IMAGES, shape.batch))

    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        scaled, unit = SCALE * unit_rows(embeddings)[0], unit_rows(rows)[0]
        return torch.nn.functional.linear_cross_entropy(scaled, unit, labels, options=options)

    return DenseRun(shape, rows, loss)


def no_linear_cross_entropy(shape: Shape) -> str | None:
    """Why it cannot run: torch has it from 2.13 on."""
    if hasattr(torch.nn.functional, "linear_cross_entropy"):
        return None
    return (
        f"torch.nn.functional.linear_cross_entropy is not in this torch ({torch.__version__}); "
        "install torch 2.13 or newer, or leave the method out"
    )


def eager_needs(shape: Shape) -> Needs:
    """Unit rows and four copies of the logits; or later three copies of the rows."""
    rows, logits = _matrices(shape, shape.classes)
    return _needs(shape, max(4 * logits + rows, 3 * rows), (rows, logits))


def linear_cross_entropy_needs(shape: Shape) -> Needs:
    """Unit rows, their gradient, two copies of a chunk's logits; or three copies of the rows."""
    rows, logits = _matrices(shape, shape.classes)
    chunk = logits * min(_CHUNK_IMAGES, shape.batch) // shape.batch
    return _needs(shape, max(2 * chunk + 2 * rows, 3 * rows), (rows,))


def row_sparse_needs(shape: Shape) -> Needs:
    """Of the sample: rows, momentum, unit rows, four copies of the logits; or five of the rows."""
    rows, logits = _matrices(shape, partial_rows(shape))
    stepping = max(4 * logits + 3 * rows, 5 * rows) + draw_bytes(shape)
    return _needs(shape, stepping, (rows, logits))


def draw_bytes(shape: Shape) -> int:
    """A random number per class, and a (number, index) of each in topk."""
    return (4 + 16) * shape.classes


def autograd_bytes(stepping: int, shape: Shape, *, matrices: Sequence[int]) -> int:
    """`stepping` bytes of matrices, with what torch takes beside them in plain autograd.

    That is a few vectors of one number per row, and what glibc keeps of freed blocks below 32 MiB:
    up to six times these `matrices` (bytes of each), twice the step's at most, were measured.
    """
    kept = 6 * sum(each for each in matrices if each < _KEPT_BELOW)
    return stepping + 4 * 8 * shape.classes + min(2 * stepping, kept)


def _needs(shape: Shape, stepping: int, matrices: Sequence[int]) -> Needs:
    step = autograd_bytes(stepping, shape, matrices=matrices)
    return Needs(table_bytes(shape), build_bytes(shape), step)


def _matrices(shape: Shape, active_rows: int) -> tuple[int, int]:
    """Bytes of active rows [k, D] and of their logits [B, k]."""
    number = active_rows * shape.number_bytes
    return number * shape.dim, number * shape.batch


def _margin_loss(embeddings: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    return dense_margin_softmax(embeddings, rows, targets, margin=MARGIN, scale=SCALE)


def _table(shape: Shape) -> CenterTable:
    return CenterTable(
        shape.classes, shape.dim, seed=0, optimizer=RowSGD(), dtype=shape.torch_dtype
    )

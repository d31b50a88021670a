r"""What all heads with class centers share. A head is a choice of active rows; the rest is here.

    loss = head(embeddings, labels)    # forward: loss, and d loss / d embeddings already finished
    loss.backward()                    # hands that gradient to the backbone, notes its scale
    head.step(lr)                      # row gradients chunk by chunk, rows updated in place

*Fused* (the usual case: one forward and backward per step). Between `backward` and `step` a head
keeps O(B D) bytes. `step` computes the softmax numerators again, a chunk of rows at a time, and
moves the rows as soon as their gradient is known: no gradient of the size of the table ever exists.

*Unfused*. Several backwards before a step (accumulation), or a call of `grad_norm`,
`clip_grad_norm_` or `row_gradients`, make the row gradients real: [K, D], K the rows that took
part. `step` then applies their sum. Losses add up as in torch: divide each by the number of
micro-batches to average. Forwards whose loss is never backpropagated change nothing.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manyface.base.errors import ConfigError
from manyface.centers import ActiveRows, CenterTable, RowSGD
from manyface.heads.checks import check_embeddings, check_labels
from manyface.margins import Margin
from manyface.softmax.streamed import (
    DEFAULT_CHUNK_SIZE,
    Residual,
    row_gradients,
    streamed_forward,
)


@dataclass(frozen=True)
class Selection:
    """The classes of a step: `ids` int64 [K] sorted (None: all), `targets` int64 [B] into them."""

    ids: Tensor | None
    targets: Tensor


@dataclass
class Pending:
    """A forward pass whose row gradients are still to be taken; `upstream` scales them."""

    rows: ActiveRows
    residual: Residual
    upstream: Tensor

    def gradients(self) -> "RowGradients":
        """All row gradients at once, [K, D]."""
        weight = self.rows.table.weight
        values = weight.new_empty(len(self.rows), weight.shape[1])
        for start, stop, chunk in row_gradients(self.residual, self.rows):
            torch.mul(chunk, self.upstream, out=values[start:stop])
        return RowGradients(self.rows.ids, values)


@dataclass(frozen=True)
class RowGradients:
    """Gradients `values` [K, D] of the rows `ids` int64 [K] (sorted, distinct; None: all rows)."""

    ids: Tensor | None
    values: Tensor

    def __add__(self, other: "RowGradients") -> "RowGradients":
        if self.ids is None or other.ids is None:
            return self._add_to_all(other)
        ids, places = torch.unique(torch.cat([self.ids, other.ids]), return_inverse=True)
        values = self.values.new_zeros(ids.shape[0], self.values.shape[1])
        values.index_add_(0, places, torch.cat([self.values, other.values]))
        return RowGradients(ids, values)

    def _add_to_all(self, other: "RowGradients") -> "RowGradients":
        everything, some = (self, other) if self.ids is None else (other, self)
        if some.ids is None:
            return RowGradients(None, everything.values.add_(some.values))
        return RowGradients(None, everything.values.index_add_(0, some.ids, some.values))


class _Loss(torch.autograd.Function):
    """Joins the finished gradient to the backbone's graph and tells the head when it is used."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, loss: Tensor, gradient: Tensor, head: Any, pending: Pending
    ) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.head, ctx.pending, ctx.dtype = head, pending, embeddings.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        ctx.head._note_backward(ctx.pending, upstream[0].detach())
        return (gradient * upstream[0]).to(ctx.dtype), None, None, None, None


class CenterHead(nn.Module, ABC):
    """A head with one center per class; subclasses choose which classes take part in a step.

    Args:
        num_classes: number of identities.
        dim: length of an embedding.
        margin: target cosine -> target logit.
        scale: factor of all logits (s in the papers).
        momentum: of the centers.
        weight_decay: of the centers.
        seed: of the centers' first values and of all draws.
        chunk_size: classes per chunk; more is not faster once a chunk fills the caches.
        dtype: of centers and arithmetic, float32 or float64.
        device: of the centers.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        margin: Margin,
        scale: float = 64.0,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        seed: int = 0,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < scale < float("inf"):
            raise ConfigError(f"scale must be a number above 0, got {scale}")
        if chunk_size < 1:
            raise ConfigError(f"chunk_size must be at least 1, got {chunk_size}")
        self.num_classes, self.dim = num_classes, dim
        self.margin, self.scale, self.chunk_size = margin, float(scale), chunk_size
        self.centers = CenterTable(
            num_classes,
            dim,
            seed=seed,
            optimizer=RowSGD(momentum=momentum, weight_decay=weight_decay),
            dtype=dtype,
            device=device,
        )
        self._pending: list[Pending] = []
        self._gradients: RowGradients | None = None
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda module, keys: module.zero_grad()
        )

    @abstractmethod
    def select(self, labels: Tensor) -> Selection:
        """The classes that take part in a step with these labels, int64 [B]."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, scalar in the centers' dtype; 0 for an empty batch.

        Args:
            embeddings: [B, dim], any length and floating dtype.
            labels: integer [B], class ids in [0, num_classes).

        Raises:
            LabelError: a label is no integer or out of range.
            NonFiniteError: an embedding holds NaN or infinity.
        """
        check_labels(labels, num_classes=self.num_classes, batch=embeddings.shape[0])
        check_embeddings(embeddings, dim=self.dim)
        if embeddings.shape[0] == 0:
            return embeddings.sum().to(self.centers.weight.dtype)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._loss(embeddings, labels.to(torch.int64))

    def step(self, lr: float) -> None:
        """Move the rows that took part since the last step; raises if none did."""
        with torch.no_grad(), torch.autocast(self.centers.weight.device.type, enabled=False):
            if len(self._pending) == 1 and self._gradients is None:
                self._fused_step(self._pending.pop(), lr)
            else:
                self._unfused_step(lr)

    def row_gradients(self) -> RowGradients:
        """Sum of the row gradients since the last step, made real: [K, D] of memory."""
        with torch.no_grad():
            while self._pending:
                gradients = self._pending.pop(0).gradients()
                self._gradients = (
                    gradients if self._gradients is None else self._gradients + gradients
                )
        if self._gradients is None:
            raise RuntimeError("the head has no gradient: call loss.backward() before head.step()")
        return self._gradients

    def grad_norm(self) -> Tensor:
        """Euclidean norm of the row gradients, scalar; goes over to the unfused mode."""
        norm: Tensor = torch.linalg.vector_norm(self.row_gradients().values)
        return norm

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale the row gradients to at most `max_norm`; returns the norm before."""
        norm = self.grad_norm()
        self.row_gradients().values.mul_((max_norm / (norm + 1e-6)).clamp_max(1.0))
        return norm

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients since the last step."""
        self._pending.clear()
        self._gradients = None

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        return f"{self.num_classes}, {self.dim}, margin={self.margin}, scale={self.scale:g}"

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        selection = self.select(labels)
        rows = self.centers.active(selection.ids)
        with torch.no_grad():
            result = streamed_forward(
                embeddings.detach().to(self.centers.weight.dtype),
                rows,
                selection.targets,
                margin=self.margin,
                scale=self.scale,
                chunk_size=self.chunk_size,
            )
        if not torch.is_grad_enabled():
            return result.loss
        if not embeddings.requires_grad:  # a frozen backbone: the centers still learn
            embeddings = embeddings.detach().requires_grad_()
        pending = Pending(rows, result.residual, torch.zeros_like(result.loss))
        loss: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
            embeddings, result.loss, result.embedding_gradient, self, pending
        )
        return loss

    def _note_backward(self, pending: Pending, upstream: Tensor) -> None:
        # A second backward through the same graph adds, as everywhere in torch.
        pending.upstream = pending.upstream + upstream
        if not any(each is pending for each in self._pending):
            self._pending.append(pending)

    def _fused_step(self, pending: Pending, lr: float) -> None:
        for start, stop, chunk in row_gradients(pending.residual, pending.rows):
            pending.rows.update(start, stop, chunk.mul_(pending.upstream), lr=lr)

    def _unfused_step(self, lr: float) -> None:
        gradients = self.row_gradients()
        rows = self.centers.active(gradients.ids)
        for start in range(0, len(rows), self.chunk_size):
            stop = min(start + self.chunk_size, len(rows))
            rows.update(start, stop, gradients.values[start:stop], lr=lr)
        self.zero_grad()

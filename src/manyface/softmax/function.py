"""The streamed softmax as a differentiable function of two tensors, for loops that keep their own
class centers as a parameter. Heads use `streamed` directly, since they update rows in place."""

from collections.abc import Callable
from typing import Any, Required, TypedDict, Unpack

import torch
from torch import Tensor

from manyface.base.errors import ConfigError, LabelError
from manyface.base.numeric import refuse_double_backward, working_dtype
from manyface.margins import Margin, NegativeRule
from manyface.parallel import Pending
from manyface.softmax.rows import TensorRows
from manyface.softmax.streamed import row_gradients, streamed_forward
from manyface.softmax.sub_centers import check_sub_centers


class StreamedOptions(TypedDict, total=False):
    """What `streamed_margin_softmax` takes by name, as `streamed_forward` documents it."""

    margin: Required[Margin]
    scale: Required[float]
    negatives: NegativeRule | None
    label_smoothing: float
    sub_centers: int
    observe: bool
    chunk_size: int


class _StreamedMarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, rows: Tensor, targets: Tensor, options: StreamedOptions
    ) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            result = streamed_forward(
                embeddings.to(working_dtype(rows.dtype)), TensorRows(rows), targets, **options
            )
        ctx.save_for_backward(rows, result.embedding_gradient)
        ctx.residual, ctx.dtype = result.residual, embeddings.dtype
        return result.loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        rows, embedding_gradient = ctx.saved_tensors
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[1] else None
        if gradient is not None:
            with torch.autocast(rows.device.type, enabled=False):
                for start, stop, chunk in row_gradients(ctx.residual, TensorRows(rows)):
                    torch.mul(chunk, upstream[0], out=gradient[start:stop])
        return (upstream[0] * embedding_gradient).to(ctx.dtype), gradient, None, None


def streamed_margin_softmax(
    embeddings: Tensor, rows: Tensor, targets: Tensor, **options: Unpack[StreamedOptions]
) -> Tensor:
    """Mean margin-softmax loss; same arguments, value and gradients as `dense_margin_softmax`, and
    a `chunk_size`. Rows may be bfloat16 too, embeddings of any dtype: see `streamed`, "Precision".

    Memory beyond the inputs and their gradients: O(B D + (B + D) chunk_size).

    Raises:
        ConfigError: rows of another dtype, or an impossible number of sub-centers.
        LabelError: a target is no integer or out of range, or there is not one per embedding.
    """
    sub_centers = options.get("sub_centers", 1)
    check_sub_centers(sub_centers, num_rows=rows.shape[0])
    _check_dtype(rows)
    _check_targets(targets, batch=len(embeddings), classes=rows.shape[0] // sub_centers)
    if embeddings.shape[0] == 0:
        return embeddings.sum() + 0.0 * rows.sum()
    loss: Tensor = _StreamedMarginSoftmax.apply(  # type: ignore[no-untyped-call]
        embeddings, rows, targets, options
    )
    return loss


def _check_dtype(rows: Tensor) -> None:
    if rows.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        raise ConfigError(
            f"rows must be float32, float64 or bfloat16, got {rows.dtype}: give rows.float(); "
            "embeddings may have any floating dtype"
        )


def _check_targets(targets: Tensor, *, batch: int, classes: int) -> None:
    if targets.dtype == torch.bool or targets.is_floating_point():
        raise LabelError(f"targets must be integers, got {targets.dtype}")
    if targets.shape != (batch,):
        raise LabelError(
            f"expected one target per embedding, shape ({batch},), got {tuple(targets.shape)}"
        )
    if batch and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise LabelError(
            f"targets must be in [0, {classes}), got {int(targets.min())} to {int(targets.max())}"
        )


class _Finished(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        loss: Tensor,
        gradient: Pending,
        factor: float,
        used: Callable[[Tensor], None] | None,
    ) -> Tensor:
        ctx.gradient, ctx.factor, ctx.used = gradient, factor, used
        ctx.dtype = embeddings.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        if ctx.used is not None:
            ctx.used(upstream[0].detach())
        gradient = ctx.gradient.wait() * (upstream[0] * ctx.factor)
        return gradient.to(ctx.dtype), None, None, None, None


def finished(
    embeddings: Tensor,
    loss: Tensor,
    gradient: Pending,
    *,
    factor: float,
    used: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """`loss`, scalar, with `factor` times `gradient`, [B, D] when it is there, as its gradient in
    `embeddings`: rows it was computed from may be overwritten before `backward`, which begins with
    telling `used` the factor of the loss, scalar."""
    attached: Tensor = _Finished.apply(  # type: ignore[no-untyped-call]
        embeddings, loss, gradient, factor, used
    )
    return attached

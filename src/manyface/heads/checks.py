"""What a head refuses, in words that lead to the cause.

insightface's head takes any label: one out of range gives a constant loss of 69.0776 for ever.
"""

import operator
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from manyface.base.errors import ConfigError, LabelError, NonFiniteError
from manyface.base.numeric import working_dtype
from manyface.margins import NegativeRule, Stateful, TrainsNorm
from manyface.margins.checks import check_label_smoothing

_CENTERS = "class centers"


def check_labels(labels: Tensor, *, num_classes: int, batch: int | None = None) -> None:
    """Labels must be integers [batch] in [0, num_classes); any number of them for None."""
    check_integer_labels(labels)
    if labels.dim() != 1 or batch not in (None, len(labels)):
        raise LabelError(
            f"expected one label per embedding, shape ({'B' if batch is None else batch},), got "
            f"{tuple(labels.shape)}"
        )
    labels = labels.to(torch.int64)  # in a narrow dtype num_classes itself could wrap
    wrong = (labels < 0) | (labels >= num_classes)
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise LabelError(
            f"label {int(labels[place])} at position {place} of the batch{_on_rank()} is outside "
            f"[0, {num_classes}): check the number of identities and how labels are made"
        )


def check_integer_labels(labels: object) -> None:
    """Labels must be a tensor of integers."""
    if not isinstance(labels, Tensor):
        raise LabelError(
            f"labels must be a tensor of integers, got {type(labels).__name__}: "
            "make one with torch.as_tensor(labels)"
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise LabelError(f"labels must be integers, got {labels.dtype}")


def check_shape(embeddings: Tensor, *, batch: int, dim: int) -> None:
    """Embeddings must be [batch, dim]: one for each label."""
    if embeddings.dim() != 2 or embeddings.shape[1] != dim:
        raise ValueError(f"embeddings must be [B, {dim}], got {list(embeddings.shape)}")
    if len(embeddings) != batch:
        raise LabelError(
            f"expected one label per embedding, shape ({len(embeddings)},), got ({batch},)"
        )


def check_finite(embeddings: Tensor, counts: Sequence[int]) -> None:
    """Embeddings [B, D], `counts` of them of each rank, must be finite, in length too."""
    finite = torch.isfinite(torch.linalg.vector_norm(embeddings, dim=1))
    if not bool(finite.all()):
        place = int((~finite).nonzero()[0])
        column = int(embeddings[place].abs().nan_to_num(torch.inf, torch.inf).argmax())
        value, rank = float(embeddings[place, column]), 0
        while len(counts) > 1 and place >= counts[rank]:
            place, rank = place - counts[rank], rank + 1
        where = f" on rank {rank}" if len(counts) > 1 else ""
        raise NonFiniteError(
            f"embedding {place} of the batch{where} holds {value} at column {column}: look at the "
            "learning rate, the input images and the precision"
        )


def check_arguments(
    *,
    margin: object,
    scale: float,
    chunk_size: int,
    dtype: torch.dtype,
    what: str = _CENTERS,
    negatives: object = None,
    label_smoothing: float = 0.0,
    operands: torch.dtype | None = None,
    seed: int = 0,
) -> None:
    """The arguments of a head that no other room checks; `what` its rows are called."""
    if isinstance(margin, type) or not callable(margin):
        raise ConfigError(f"margin must be a margin such as CosFace(0.4), got {margin!r}")
    if not 0.0 < scale < float("inf"):
        raise ConfigError(f"scale must be a number above 0, got {scale}")
    if chunk_size < 1:
        raise ConfigError(f"chunk_size must be at least 1, got {chunk_size}")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be in [0, 2**64), got {seed}; take seed % 2**64")
    if negatives is not None and (
        isinstance(negatives, type) or not isinstance(negatives, NegativeRule)
    ):
        raise ConfigError(
            f"negatives must be a rule such as CurricularFace() or None, got {negatives!r}"
        )
    check_label_smoothing(label_smoothing)
    _check_dtype(dtype, what)
    possible = (torch.bfloat16, working_dtype(dtype))
    if operands not in (None, *possible):
        raise ConfigError(
            f"operands must be None, {possible[0]} or {possible[1]} where {what} are {dtype}, "
            f"got {operands}"
        )


def refuse_margin(margin: object, *, head: str) -> None:
    """Refuse a margin that looks at whole batches, or trains lengths, in a `head` that cannot."""
    name = type(margin).__name__
    instead = (
        "take a margin of the target cosine such as ArcFace, or the heads FullFC and PartialFC"
    )
    if isinstance(margin, Stateful):
        raise ConfigError(f"{head} keeps no running averages, which margin {name} needs: {instead}")
    if isinstance(margin, TrainsNorm):
        raise ConfigError(
            f"{head} does not train the length of embeddings, as margin {name} wants: {instead}"
        )


def check_count(name: str, value: object) -> None:
    """`value` must be a whole number of at least 1, and no bool."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_table(rows: Tensor, what: str = _CENTERS, *, dtype: torch.dtype | None = None) -> None:
    """The rows, made in `dtype`, may have been moved by `module.half()` or the like."""
    _check_dtype(rows.dtype, what)
    if dtype not in (None, rows.dtype):
        raise ConfigError(
            f"the {what} were made as {dtype} and are {rows.dtype} now; embeddings may have any "
            "floating dtype, so keep the head out of .to(dtype) and of pure 16-bit precision "
            "plugins"
        )


def _check_dtype(dtype: torch.dtype, what: str) -> None:
    possible = (torch.float32, torch.float64, *((torch.bfloat16,) if what == _CENTERS else ()))
    if dtype in possible:
        return
    names = [str(each).removeprefix("torch.") for each in possible]
    raise ConfigError(
        f"{what} must be {', '.join(names[:-1])} or {names[-1]}, got {dtype}; embeddings may have "
        "any floating dtype, so keep the head out of .half() and of pure 16-bit precision plugins"
    )


def _on_rank() -> str:
    return f" on rank {dist.get_rank()}" if dist.is_available() and dist.is_initialized() else ""

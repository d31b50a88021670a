"""What a margin is, and the two things that some margins and rules do beyond it.

Most margins are plain functions of the target cosine and need nothing but `Margin`. A margin or a
rule for the negatives that looks at whole batches is also `Stateful`; a margin that trains the
length of the embeddings is also `TrainsNorm`. Who calls them asks `isinstance`.
"""

import copy
from collections.abc import Iterable
from typing import Literal, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from manyface.margins.running import RunningAverages

Part = TypeVar("Part")
GradientKind = Literal["exact", "straight_through"]


@runtime_checkable
class Margin(Protocol):
    """Target cosines -> target logits before the scale, differentiable with the gradient it states.

    Elementwise: sample i's logit depends on sample i's cosine and length alone. Values must not
    exceed 1, since the softmax relies on logits bounded by the scale. Only the cosine is
    differentiated (and the length if it is `TrainsNorm`), so a margin has no parameters that learn.
    """

    @property
    def gradient(self) -> GradientKind:
        """Whether autograd through the margin is the true derivative of its value."""

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """Target logits [B] of target cosines [B]; `norms` [B] are lengths of the embeddings."""


@runtime_checkable
class Stateful(Protocol):
    """A margin or a rule for the negatives that keeps running averages over batches.

    `observe` is called once per training forward, before the margin and the rule are applied, with
    the whole batch (that of all ranks); never in evaluation. The averages are part of a checkpoint.
    """

    @property
    def running(self) -> RunningAverages:
        """The averages; shared by copies made with `dataclasses.replace`."""

    def observe(self, cosine: Tensor, norms: Tensor) -> None:
        """Take in target cosines [n], of the samples whose class takes part (all B of them but
        with the sampler `FullyRandom`), and lengths of the embeddings [B]; not differentiated."""


@runtime_checkable
class TrainsNorm(Protocol):
    """A margin whose loss has a gradient with respect to the length of an embedding.

    It is called with lengths that autograd follows, and the mean of its penalties is added to the
    loss.
    """

    def penalty(self, norms: Tensor) -> Tensor:
        """What a sample adds to the loss, [B], for lengths [B]; 0 where it only moves a margin."""


def let_observe(parts: Iterable[object], cosine: Tensor, norms: Tensor) -> None:
    """Show a training batch to those of `parts` that are `Stateful`, as [n] and [B]."""
    for part in parts:
        if isinstance(part, Stateful):
            part.observe(cosine.detach(), norms.detach())


def frozen(part: Part) -> Part:
    """`part` as it is now: a copy of one that is `Stateful`, whose averages later stay behind."""
    return copy.deepcopy(part) if isinstance(part, Stateful) else part

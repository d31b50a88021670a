"""What every backbone is: images in, embeddings out, and one visible island of full precision.

A backbone is a `trunk` (the expensive part, bf16 under autocast) followed by `project` (flatten,
final linear layer, final batch norm). `project` always runs in fp32: the last batch norm sets the
scale of the cosines, and 8 bits of mantissa there would be the accuracy of every score. insightface
keeps the same border (its nets leave autocast before `fc`), so published weights see the same
arithmetic here.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from manyface.backbones.initialise import FirstValues
from manyface.base.errors import ConfigError, DataError

SIZE_STEP = 16


class Backbone(nn.Module):
    """Base of all nets: float32 images [B, 3, S, S] -> float32 embeddings [B, D], any norm."""

    first_values: ClassVar[FirstValues]
    # Mostly faster on CPUs (docs/backbones.md has figures), and what tensor cores of GPUs want.
    # Only the images are converted: weights stay contiguous, and so does a state_dict.
    channels_last: bool = True
    # Training keeps only the inputs of blocks for the backward pass; see `through`.
    activation_checkpointing: bool = False

    def __init__(self, *, embedding_size: int, image_size: int) -> None:
        super().__init__()
        if embedding_size < 1:
            raise ConfigError(f"backbone.embedding_size must be at least 1, got {embedding_size}")
        if image_size < SIZE_STEP or image_size % SIZE_STEP:
            raise ConfigError(
                f"image_size must be a multiple of {SIZE_STEP}, got {image_size}; "
                f"the nearest is {max(SIZE_STEP, round(image_size / SIZE_STEP) * SIZE_STEP)}"
            )
        self.embedding_size = embedding_size
        self.image_size = image_size

    def initialise_rest(self) -> None:
        """First values that no `FirstValues` rule expresses; most nets have none."""

    def trunk(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] to the features that `project` takes, in the autocast dtype."""
        raise NotImplementedError

    def project(self, features: Tensor) -> Tensor:
        """Features of the trunk, float32, to embeddings [B, D]; runs outside autocast."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=layout)
        features = self.trunk(images)
        with full_precision(features):
            return self.project(features.float())  # [B, D]

    def through(self, blocks: Iterable[nn.Module], features: Tensor) -> Tensor:
        """Features through one block after the other, each of which can be recomputed."""
        recompute = self.activation_checkpointing and self.training
        for block in blocks:
            features = run_block(block, features, recompute=recompute)
        return features

    def _check(self, images: Tensor) -> None:
        expected = (3, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise DataError(
                f"this backbone takes images [B, {', '.join(map(str, expected))}], "
                f"got {list(images.shape)}; resize the images or build it with another image_size"
            )


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A region without autocast on the tensor's device, where that device has autocast at all."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def run_block(block: nn.Module, features: Tensor, *, recompute: bool) -> Tensor:
    """`block(features)`; with `recompute` its activations are dropped and made again later."""
    output: Tensor
    if not (recompute and torch.is_grad_enabled()):
        output = block(features)
    elif torch.compiler.is_compiling():
        # The compiled graph updates running statistics once by itself (and refuses a context_fn).
        output = checkpoint(block, features, use_reentrant=False)
    else:
        contexts = partial(_contexts, block)
        output = checkpoint(block, features, use_reentrant=False, context_fn=contexts)
    return output


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Around the first pass nothing; around the recomputation, frozen statistics."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Running statistics and batch counts stay as they are, so that a batch counts once.

    By momentum 0, not by `track_running_stats`: recomputation must save the same tensors.
    """
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def check_share(name: str, value: float) -> float:
    """`value` if it is a share in [0, 1), else a ConfigError."""
    if not 0 <= value < 1:
        raise ConfigError(f"backbone.{name} must be at least 0 and below 1, got {value}")
    return value


def final_batch_norm(num_features: int, *, eps: float = 1e-5) -> nn.BatchNorm1d:
    """The last layer of iResNet: batch norm whose weight stays 1, so that all directions count."""
    norm = nn.BatchNorm1d(num_features, eps=eps)
    norm.weight.requires_grad_(False)
    return norm

"""An averaged copy of a net: the exponential moving average of its parameters over the steps.

The copy is what one evaluates. Parameters p follow  a <- d a + (1 - d) p  with
d = min(decay, (1 + n) / (10 + n))  at update n = 0, 1, ...: this warm-up forgets the first values
within a few dozen steps, so that short runs gain too; it can be left out. Buffers: batch-norm
running statistics are averaged with the same d, so that they belong to the averaged weights, or
copied as they are; integers (batches seen) are always copied.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from manyface.base.errors import CheckpointError, ConfigError

_COUNT = "num_updates"
_PREFIX = "net."


class AveragedNet:
    """`net` is the average, in eval mode and without gradients; `update` after each optimizer step.

    Give it the plain module, not its DDP or torch.compile wrapper.
    """

    def __init__(
        self,
        source: nn.Module,
        *,
        decay: float,
        buffers: Literal["average", "copy"] = "average",
        warmup: bool = True,
    ) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"the decay of an averaged net must be in [0, 1), got {decay}")
        self.decay = decay
        self.buffers, self.warmup = buffers, warmup
        self.num_updates = 0
        self.net = copy.deepcopy(source).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        """Move the average towards `source`, in place."""
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.num_updates) / (10 + self.num_updates))
        weight = 1 - decay
        mine: list[Tensor] = list(self.net.parameters())
        theirs: list[Tensor] = list(source.parameters())
        copied = []
        for average, current in zip(self.net.buffers(), source.buffers(), strict=True):
            if self.buffers == "average" and average.is_floating_point():
                mine.append(average)
                theirs.append(current)
            else:
                copied.append((average, current))
        torch._foreach_lerp_(mine, theirs, weight)
        for average, current in copied:
            average.copy_(current)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """The average and its number of updates, as tensors only."""
        state = {_PREFIX + name: value for name, value in self.net.state_dict().items()}
        return {**state, _COUNT: torch.tensor(self.num_updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave; anything else is an error."""
        if _COUNT not in state:
            raise CheckpointError(f"this is no state of an averaged net: {_COUNT!r} is missing")
        inner = {
            name.removeprefix(_PREFIX): value for name, value in state.items() if name != _COUNT
        }
        self.net.load_state_dict(inner)
        self.num_updates = int(state[_COUNT])

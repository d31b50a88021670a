"""Copies of a net on several ranks, and what keeps them equal.

Gradients are averaged by DistributedDataParallel; a head makes its gradient so that this mean is
the gradient of the mean over all samples (heads/base.py). Batch norm normalises each rank's part of
a batch by itself, and its running statistics are averaged in every step, so that all ranks hold one
net, which is what is evaluated and saved.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from manyface.parallel import Ranks

STATISTICS = "batch norm statistics"
# torch 2.13 gave it another name; the floor is 2.10.
_NAMES = signature(DistributedDataParallel.__init__).parameters
_KEY = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"
_NO_BUFFERS: dict[str, Any] = {_KEY: False}


class Copies:
    """One rank's copy of `net`; call it instead of the net where gradients are wanted.

    Args:
        net: the same on all ranks.
        ranks: that have it.
    """

    def __init__(self, net: nn.Module, ranks: Ranks) -> None:
        self.ranks = ranks
        self._net: nn.Module = net
        self._parallel: DistributedDataParallel | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Embeddings; backward averages the gradients of all ranks."""
        self.connect()
        embeddings: Tensor = (self._parallel or self._net)(images)
        return embeddings

    def connect(self) -> None:
        """Meet the copies of the other ranks; all call it, or it is done when first needed.

        Not when a copy is made: nothing that is built talks, so that what cannot be built on one
        rank can be said on all.
        """
        learns = any(p.requires_grad for p in self._net.parameters())
        if self._parallel is not None or self.ranks.is_alone or not learns:
            return
        with self.ranks.working("copies of the net"):
            # Statistics are averaged here; DDP would take those of rank 0.
            self._parallel = DistributedDataParallel(self._net, **_NO_BUFFERS)
        self._settle(self._parallel)

    def _settle(self, parallel: DistributedDataParallel) -> None:
        """Two backwards of nothing, for the sake of a resume.

        After its first backward DDP lays gradients out anew, in the order in which they came; how a
        sum over three or more ranks is rounded depends on that. So the first step of a resumed run
        would round otherwise than the same step of one that went on. Here gradients come in the
        order that DDP begins with, the reverse of the parameters'.

        The second pass forward tells the other ranks of that order, which else the first step
        would. Its backward has to follow: DDP waits for it, and would talk in the first one to
        come, though that be `apart`.
        """
        trained = [p for p in self._net.parameters() if p.requires_grad]
        self._net.forward = lambda: torch.stack([p.sum() * 0 for p in trained]).sum()
        try:
            with (
                torch.enable_grad(),
                torch.compiler.set_stance("force_eager"),
                self.ranks.working("gradients of the net"),
            ):
                for _ in range(2):
                    parallel().backward()
        finally:
            del self._net.forward  # what hides the method of its class
        for parameter in trained:
            parameter.grad = None

    def apart(self) -> AbstractContextManager[None]:
        """Backwards inside keep their gradients to themselves, for a later one to average."""
        self.connect()
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    @torch.no_grad()
    def average_statistics(self, modules: Iterable[nn.Module]) -> None:
        """The mean over ranks of all running statistics: an all-reduce of 4 bytes for each."""
        if self.ranks.is_alone:
            return
        found = [values for module in modules for values in _statistics(module)]
        if found:
            mean = self.ranks.sum_(torch.cat([values.flatten() for values in found]), STATISTICS)
            mean /= self.ranks.size
            parts = torch.split(mean, [values.numel() for values in found])
            for values, part in zip(found, parts, strict=True):
                values.copy_(part.view_as(values))


def _statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances."""
    found = []
    for part in module.modules():
        if isinstance(part, _NormBase):
            found += [v for v in (part.running_mean, part.running_var) if v is not None]
    return found

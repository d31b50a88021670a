"""Where the seconds of a training step go: a method of train/ is watched from outside, unchanged.

    loader    waiting for the batch, and taking its images to the device
    backbone  forward and backward of the net; in F2C of the gallery net too, forward
    head      loss and its gradients, those of the embeddings; in F2C the pool, and the gallery net
              following
    update    of the net: gradient norm, check, optimizer, averaged net
    rows      of the class centers: their gradients and optimizer

Forward ends where the net returns. Backward of the head ends, and that of the net begins, where the
gradient of the embeddings is there.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from manyface.train.method import Classification, PoolTraining

PARTS = ("loader", "backbone", "head", "update", "rows")

P = ParamSpec("P")
T = TypeVar("T")


class Stopwatch:
    """Time belongs to one part until `switch` names another.

    On an accelerator every border waits until the device has done what it was given, so that a part
    has its own work and no other's. That costs overlap of host and device: with `splits` False only
    start and stop are borders.
    """

    def __init__(self, device: torch.device) -> None:
        self.splits = True
        self._device = device
        self._part, self._since = "", 0.0
        self._seconds: dict[str, float] = {}

    def start(self, part: str) -> None:
        """Begin at nought."""
        self._seconds = {}
        self._part, self._since = part, self._now()

    def switch(self, part: str) -> None:
        """From here on time belongs to `part`."""
        if self.splits:
            self._count()
            self._part = part

    def stop(self) -> dict[str, float]:
        """Seconds of each part since `start`."""
        self._count()
        return self._seconds

    def around(
        self, function: Callable[P, T], *, before: str, after: str | None = None
    ) -> Callable[P, T]:
        """`function`, with a switch to `before` when it begins and to `after` when it ends."""

        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            self.switch(before)
            result = function(*args, **kwargs)
            if after is not None:
                self.switch(after)
            return result

        return run

    def _count(self) -> None:
        now = self._now()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._since
        self._since = now

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()


@contextmanager
def watched(method: Classification | PoolTraining, watch: Stopwatch) -> Iterator[None]:
    """Inside, steps of `method` tell `watch` which part they are in."""
    with ExitStack() as changes:

        def change(owner: object, name: str, **parts: str) -> None:
            timed = watch.around(getattr(owner, name), **parts)
            changes.enter_context(patch.object(owner, name, timed))

        change(method, "loss", before="loader")
        change(method, "clip_gradients", before="update")
        if isinstance(method, Classification):
            change(method.head, "step", before="rows", after="update")
        for net in _nets(method):
            name = _call_of(net)
            changes.enter_context(patch.object(net, name, _timed_net(getattr(net, name), watch)))
        yield


def _nets(method: Classification | PoolTraining) -> list[nn.Module]:
    if isinstance(method, PoolTraining):
        return [method.net, method.f2c.gallery_net]
    return [method.net]


def _call_of(net: nn.Module) -> str:
    """What a call of `net` runs: where it is compiled (in place), not its forward."""
    compiled = getattr(net, "_compiled_call_impl", None)
    return "forward" if compiled is None else "_compiled_call_impl"


def _timed_net(call: Callable[..., Tensor], watch: Stopwatch) -> Callable[..., Tensor]:
    timed = watch.around(call, before="backbone", after="head")

    def run(*args: Any) -> Tensor:
        embeddings = timed(*args)
        if embeddings.requires_grad:
            embeddings.register_hook(  # type: ignore[no-untyped-call]
                lambda _: watch.switch("backbone")
            )
        return embeddings

    return run

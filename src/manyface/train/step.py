"""One update: forward and backward of each batch, clip, check, move.

*Accumulation averages.* A step may take several batches; each one's mean loss counts with its share
of the images, so the gradient is that of the mean over all of them.

*Ranks.* A loss is the mean over the images of all ranks, the same on each; gradients of nets are
made so too, with the last batch of a step. So what is decided from them (clipping, a number that is
not finite) is decided alike.

*Randomness.* Whatever a net draws in its forward pass (dropout, stochastic depth, token masks)
comes from torch's default generator, seeded here from (seed, step) and put back afterwards. A step
is thereby a pure function of the state and the step number; a resume needs no generator state.
Ranks draw otherwise, so with such nets their number matters.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.base.errors import NonFiniteError
from manyface.base.random import stream_seed
from manyface.data.loader import Batch
from manyface.parallel import ALONE, Ranks
from manyface.train.method import Method


@dataclass(frozen=True)
class StepResult:
    """Numbers of a step, scalars still on the device: reading them waits for it."""

    loss: Tensor
    grad_norm: Tensor


def train_step(
    method: Method,
    batches: Sequence[Batch],
    *,
    step: int,
    factor: float,
    seed: int,
    guard: "FiniteGuard",
    ranks: Ranks = ALONE,
) -> StepResult:
    """Make update number `step` (from 0) with the mean loss of `batches`."""
    num_images = sum(batch.num_images for batch in batches)
    losses: list[Tensor] = []
    with step_randomness(seed, step, device=method.device, rank=ranks.rank):
        method.begin_step()
        for batch in batches:
            with nullcontext() if batch is batches[-1] else method.accumulating():
                loss = method.loss(batch) * (batch.num_images / num_images)
                with ranks.working("gradients of the net"):
                    loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        result = StepResult(loss=total, grad_norm=method.clip_gradients())
        guard.watch(step, result)
        method.update(factor)
    return result


@contextmanager
def step_randomness(
    seed: int, step: int, *, device: torch.device, stream: str = "step", rank: int = 0
) -> Iterator[None]:
    """Torch's default generators are seeded from (seed, stream, step, rank) inside, restored
    after."""
    inside = stream_seed(seed, stream, step, *([rank] if rank else []))
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # Not torch.manual_seed: it visits every kind of device and takes a millisecond to do so.
        torch.default_generator.manual_seed(inside)
        if on_gpu:
            with torch.cuda.device(device):  # whichever is current
                torch.cuda.manual_seed(inside)
        yield


class FiniteGuard:
    """Stops a run whose loss or gradient is not finite, naming quantity and step.

    On the CPU every step is checked before it moves anything. On a GPU reading a number would wait
    for the device, so the first bad step is noted there and read in `check`, which the loop calls
    where it waits anyway: before logging, evaluating and saving. A broken net is never saved.
    """

    _NEVER = 2**62

    def __init__(self, device: torch.device) -> None:
        self._immediate = device.type == "cpu"
        self._first_bad = torch.full((2,), self._NEVER, dtype=torch.int64, device=device)

    def watch(self, step: int, result: StepResult) -> None:
        """Note the numbers of a step."""
        bad = ~torch.isfinite(torch.stack([result.loss.double(), result.grad_norm.double()]))
        now = torch.where(bad, step, self._NEVER)
        self._first_bad = torch.minimum(self._first_bad, now)
        if self._immediate:
            self.check()

    def check(self) -> None:
        """Raise if any watched step was bad."""
        loss_step, norm_step = (int(step) for step in self._first_bad)
        if min(loss_step, norm_step) == self._NEVER:
            return
        quantity = "the loss" if loss_step <= norm_step else "the backbone's gradient norm"
        raise NonFiniteError(f"{quantity} is not finite at step {min(loss_step, norm_step) + 1}")

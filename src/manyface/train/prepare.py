"""What a method is shown before its first step: the pool of F2C may be filled then.

It belongs to the beginning of a run that has no checkpoint: what it has changed is in all of them,
and a run that is stopped in the middle of it has none, so it begins again.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from manyface.data.loader import Batch
from manyface.observe.progress import format_duration
from manyface.parallel import ALONE, Ranks
from manyface.train.method import Method
from manyface.train.recording import Recorder
from manyface.train.step import step_randomness
from manyface.train.stop import Interrupted, StopFlag, received_by_any


@dataclass(frozen=True)
class Preparation:
    """What is shown.

    Attributes:
        what: that it does, for people.
        num_images: in all batches together.
        batches: the same ones at every call.
    """

    what: str
    num_images: int
    batches: Callable[[], Iterator[Batch]]


def prepare(
    method: Method,
    preparation: Preparation,
    *,
    seed: int,
    recorder: Recorder,
    stop: StopFlag,
    ranks: Ranks = ALONE,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Show all of it to `method`; all ranks call this.

    Raises:
        Interrupted: a stop was asked for; nothing is saved.
    """
    begun, done = clock(), 0
    with recorder.doing(preparation.what) as tell, closing(_batches(preparation)) as batches:
        for number, batch in enumerate(batches):
            if received := received_by_any(stop, ranks):
                raise Interrupted(received, checkpoint=None)
            with step_randomness(seed, number, device=method.device, stream="prepare"):
                method.prepare(batch)
            done += len(batch.images)
            tell(how_far(done, preparation.num_images, seconds=clock() - begun))
    recorder.prepared(images=done, preparation_seconds=round(clock() - begun, 3))


def how_far(done: int, total: int, *, seconds: float) -> str:
    """Images done, images per second and time left, in words."""
    speed = done / seconds if seconds > 0 else 0.0
    left = format_duration((total - done) / speed) if speed > 0 else "?"
    return f"{done}/{total}  {speed:.0f} images/s  {left} left"


def _batches(preparation: Preparation) -> Generator[Batch, None, None]:
    """As a generator, so that the threads behind them end with the loop, however it ends."""
    yield from preparation.batches()

"""Batches for training, made ahead of it by background threads.

    batches(start_step) = batch start_step, start_step + 1, ...   (no state: the step is all)

A thread pool makes the next `prefetch` batches while training works on the current one; they are
handed out in order, so depth and number of workers change the speed and never the content. Each
worker keeps to one core (threads.py). Decoding is spread over more threads by the source itself. An
error in a worker is raised to the consumer as what it is. Leaving the loop in any way (break, an
error, Ctrl-C) cancels what has not begun and waits for what has: no thread outlives the loop.

At most `prefetch` batches wait or are being made while one is worked on: that bounds the memory.

*For a GPU* (`on_device`) batches are left as they were decoded, uint8 in pinned memory, a quarter
of the bytes: `Batch.images_on` copies them and augments there, by the same draws. Pinned memory is
taken from and given back to torch's cache, which waits for the copies under way.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import TypeVar

import numpy as np
import torch

from manyface.base.errors import DataError
from manyface.base.random import stream_seed
from manyface.base.threads import use_one_core
from manyface.data.buffers import Buffers
from manyface.data.samplers import EpochSampler, MakeSampler
from manyface.data.source import ImageSource, Int64Array
from manyface.data.transforms import Augmentation, augment
from manyface.parallel import Shard

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Attributes:
    images: float32 [B, 3, S, S] in [-1, 1], channels-last; or, of a loader `on_device`, uint8
        [B, S, S, 3].
    labels: int64 [B].
    first_position: of the first sample in the endless row of positions; step * B.
    num_images: of all ranks together.
    finish: makes the former of the latter, on the device that they are on.
    """

    images: torch.Tensor
    labels: torch.Tensor
    first_position: int
    num_images: int
    finish: Callable[[torch.Tensor], torch.Tensor] | None = field(default=None, kw_only=True)

    def images_on(self, device: torch.device) -> torch.Tensor:
        """float32 [B, 3, S, S] in [-1, 1] on `device`; a CUDA GPU is not waited for."""
        images = self.images.to(device, non_blocking=device.type == "cuda")
        return images if self.finish is None else self.finish(images)


class Loader:
    """Shuffled, augmented, prefetched batches of `source`.

    Args:
        source: at least one image and two identities.
        batch_size: images per batch, B, of all ranks together; never short, batches run across
            epoch borders.
        seed: of order and augmentation.
        augmentation: what to draw (transforms.Augmentation).
        prefetch: batches made ahead; 0 makes each one when it is asked for, in the same thread.
        workers: background threads; each makes whole batches.
        rank, num_ranks: whose part of every batch is made (parallel/shard.py); what all make
            together is the same for any number of ranks.
        order: makes the sampler; `BlockSampler` with its options, else every order is possible.
        on_device: leave augmentation to `Batch.images_on`.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        prefetch: int = 2,
        workers: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
        order: MakeSampler = EpochSampler,
        on_device: bool = False,
    ) -> None:
        if batch_size < 1 or prefetch < 0 or workers < 1:
            raise ValueError(
                f"expected batch_size >= 1, prefetch >= 0, workers >= 1, got {batch_size}, "
                f"{prefetch}, {workers}"
            )
        check_trainable(source)
        self.source = source
        self.batch_size = batch_size
        self._mine = Shard.of(batch_size, rank=rank, size=num_ranks)
        self.augmentation = augmentation
        self.prefetch, self.workers = prefetch, workers
        self._on_device = on_device
        self._buffers = Buffers(spare=prefetch + workers)
        self._sampler = order(len(source), seed=stream_seed(seed, "data", "order"))
        self._augmentation_seed = stream_seed(seed, "data", "augmentation")

    @property
    def steps_per_epoch(self) -> float:
        return len(self.source) / self.batch_size

    def batch(self, step: int, *, begins: bool = False) -> Batch:
        """Batch number `step`, made here and now; `begins`: there was none before."""
        first = step * self.batch_size
        ask_for(self.source, self._sampler.ahead(first, self.batch_size, begins=begins))
        positions = self._positions(step)
        return make_batch(
            self.source,
            self._sampler.indices(positions),
            positions,
            seed=self._augmentation_seed,
            augmentation=self.augmentation,
            num_images=self.batch_size,
            on_device=self._on_device,
            buffers=self._buffers,
        )

    def records_of(self, step: int) -> Int64Array:
        """Records of this rank's part of batch number `step`, int64 [b]; nothing is loaded."""
        return self._sampler.indices(self._positions(step))

    def _positions(self, step: int) -> Int64Array:
        first = step * self.batch_size
        return np.arange(first + self._mine.start, first + self._mine.stop, dtype=np.int64)

    def batches(self, start_step: int = 0, stop_step: int | None = None) -> Iterator[Batch]:
        """Batches [start_step, stop_step), or without end."""
        steps = step_numbers(start_step, stop_step)
        return made_ahead(
            lambda step: self.batch(step, begins=step == start_step),
            steps,
            prefetch=self.prefetch,
            workers=self.workers,
        )


def make_batch(
    source: ImageSource,
    indices: Int64Array,
    positions: Int64Array,
    *,
    seed: int,
    augmentation: Augmentation,
    num_images: int,
    on_device: bool,
    buffers: Buffers,
) -> Batch:
    """The records `indices` [B] of `source`, augmented as (seed, `positions` [B]) say, here or
    `on_device`; in memory of `buffers`, or pinned."""
    finish = partial(augment, positions=positions, seed=seed, options=augmentation)
    labels = torch.from_numpy(source.labels(indices))
    first = int(positions[0])
    count, side = len(indices), source.image_size
    pins = on_device and torch.cuda.is_available()
    if pins:
        memory = torch.empty((count, side, side, 3), dtype=torch.uint8, pin_memory=True)
    else:
        memory = buffers.take((count, side, side, 3), torch.uint8)
    pixels = source.load(indices, memory)
    if on_device:
        return Batch(pixels, labels, first, num_images, finish=finish)
    memory = buffers.take((count, side, side, 3), torch.float32)
    images = finish(pixels, out=memory.permute(0, 3, 1, 2))  # the colours of a pixel together
    return Batch(images, labels, first, num_images)


def ask_for(source: ImageSource, records: Int64Array) -> None:
    """Tell `source` of records that will be wanted soon, if there are any."""
    if records.size:
        source.will_read(records)


def step_numbers(start: int, stop: int | None) -> Iterator[int]:
    """The steps [start, stop), or without end."""
    if start < 0:
        raise ValueError(f"start_step must be >= 0, got {start}")
    return iter(count(start) if stop is None else range(start, stop))


def made_ahead(
    make: Callable[[S], T], steps: Iterator[S], *, prefetch: int, workers: int
) -> Iterator[T]:
    """make(k) of every step in order, begun up to `prefetch` steps early by `workers` threads."""
    if prefetch == 0:
        return map(make, steps)
    return _in_threads(make, steps, prefetch=prefetch, workers=workers)


def _in_threads(
    make: Callable[[S], T], steps: Iterator[S], *, prefetch: int, workers: int
) -> Generator[T, None, None]:
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="loader", initializer=use_one_core) as pool:
        try:
            pending.extend(pool.submit(make, k) for k in islice(steps, prefetch))
            while pending:
                ready = pending.popleft().result()
                pending.extend(pool.submit(make, k) for k in islice(steps, 1))
                yield ready
        finally:
            for future in pending:
                future.cancel()


def check_trainable(source: ImageSource) -> None:
    """At least one image and two people; DataError otherwise."""
    if len(source) < 1:
        raise DataError(f"{source.name} holds no image; expected at least one per person")
    if source.num_identities < 2:
        raise DataError(
            f"{source.name} holds one person only ({len(source)} images); training needs at least "
            f"2 people to tell apart: one folder per person"
        )

"""Batches for F2C: pairs of images of one identity, and ordinary images, in a stated mix.

A step of B images has two half batches x and y that stand face to face:

    x = [first images of I identities | an ordinary image sample, first half ]
    y = [second images of the same    | an ordinary image sample, second half]

The identity part (2 I images) sees to it that there are positives in the pool and that all
identities come by; the instance part follows the distribution of the data (arXiv 2105.10375). With
`identity_share` 1/2 they are equal, as the paper draws them; 2/3 is what its code runs.

Identities are shuffled anew on every pass over them, images likewise (or by blocks: only the
instance part can follow the storage, pairs are looked up wherever they are). Of an identity's
images two different ones are drawn; one that has a single image shows it twice, augmented each time
on its own. Batch k is a pure function of (seed, k), so a resume needs k alone.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from manyface.base.errors import ConfigError, DataError
from manyface.base.random import hash_uniform, stream_seed
from manyface.data.buffers import Buffers
from manyface.data.loader import (
    Batch,
    ask_for,
    check_trainable,
    made_ahead,
    make_batch,
    step_numbers,
)
from manyface.data.samplers import EpochSampler, MakeSampler
from manyface.data.source import GroupedSource, Int64Array
from manyface.data.transforms import Augmentation
from manyface.parallel import Shard

PlanT = TypeVar("PlanT")
PlanCo = TypeVar("PlanCo", covariant=True)


class Planner(Protocol[PlanCo]):
    """Plans the steps of training, in order, from their labels."""

    def plan(self, x_labels: Int64Array, y_labels: Int64Array) -> PlanCo: ...


@dataclass(frozen=True)
class DualBatch(Batch, Generic[PlanT]):
    """Attributes:
    images, labels: as of Batch, half batch x, then half batch y.
    plan: what a planner made of the labels, None without one.
    """

    plan: PlanT | None


def num_pairs(batch_size: int, identity_share: float) -> int:
    """Identities of a batch that come as a pair of images."""
    return round(identity_share * batch_size / 2)


class DualSampler:
    """Which records make batch k: x, then y.

    Args:
        source: the images.
        batch_size: B, even.
        identity_share: of the images that come as pairs of an identity, in [0, 1].
        seed: of both orders and of the choice among an identity's images.
        order: makes the sampler of the instance part.
        identity_order: makes that of the identities.
    """

    def __init__(
        self,
        source: GroupedSource,
        *,
        batch_size: int,
        identity_share: float,
        seed: int,
        order: MakeSampler = EpochSampler,
        identity_order: MakeSampler = EpochSampler,
    ) -> None:
        if batch_size < 2 or batch_size % 2:
            near = max(2, batch_size - batch_size % 2)
            raise ConfigError(
                f"a dual batch needs an even number of images, got {batch_size}; set "
                f"train.batch_size to {near} or {near + 2}"
            )
        if not 0 <= identity_share <= 1:
            raise ConfigError(f"identity_share must be in [0, 1], got {identity_share}")
        self._source = source
        self.num_pairs = num_pairs(batch_size, identity_share)
        _check_pairs(self.num_pairs, batch_size, identity_share)
        self.num_singles = batch_size - 2 * self.num_pairs
        self._pair_seed = stream_seed(seed, "pairs")
        self._identities = identity_order(
            source.num_identities, seed=stream_seed(seed, "identities")
        )
        self._images = order(len(source), seed=stream_seed(seed, "order"))

    def indices(self, step: int) -> Int64Array:
        """Records of batch `step`, int64 [B]."""
        first, second = self._pairs(_positions(step, self.num_pairs))
        one, two = np.split(self._images.indices(_positions(step, self.num_singles)), 2)
        return np.concatenate([first, one, second, two])

    def ahead(self, step: int, *, begins: bool) -> Int64Array:
        """Records worth asking the disk for when batch `step` is read (`Sampler.ahead`)."""
        return self._images.ahead(step * self.num_singles, self.num_singles, begins=begins)

    def shown_last(self, places: Int64Array) -> Int64Array:
        """A record of the identity that the first pass shows last (place 0), last but one (1) ...

        int64 [B] -> int64 [B]; the record is that of its turn in x.
        """
        first, _ = self._pairs(self._source.num_identities - 1 - places)
        return first

    def _pairs(self, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Two records of the identity at each position; the same one if it has no other."""
        first, count = self._source.images_of(self._identities.indices(positions))
        one = np.floor(hash_uniform(self._pair_seed, positions) * count).astype(np.int64)
        others = np.maximum(count - 1, 1)
        ahead = np.floor(hash_uniform(self._pair_seed, positions, lane=1) * others)
        two = (one + 1 + ahead.astype(np.int64)) % count
        return first + one, first + two


class DualLoader(Generic[PlanT]):
    """Shuffled, augmented, prefetched dual batches of `source`, each with its plan.

    Args:
        source, batch_size, augmentation, prefetch, workers, rank, num_ranks: as in Loader. A rank
            makes its part of half batch x and the same part of y.
        seed: of orders, pairs and augmentation.
        identity_share: as in DualSampler.
        order, identity_order: as in DualSampler.
        on_device: as in Loader.
        make_planner: called when the first batch is asked for; its planner is given the labels of
            every batch in order, in a thread of its own, up to `prefetch` steps ahead.
    """

    def __init__(
        self,
        source: GroupedSource,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        identity_share: float = 1.0,
        make_planner: Callable[[], Planner[PlanT]] | None = None,
        prefetch: int = 2,
        workers: int = 1,
        rank: int = 0,
        num_ranks: int = 1,
        order: MakeSampler = EpochSampler,
        identity_order: MakeSampler = EpochSampler,
        on_device: bool = False,
    ) -> None:
        check_trainable(source)
        _check_everyone_has_images(source)
        self.source, self.batch_size, self.augmentation = source, batch_size, augmentation
        self.prefetch, self.workers = prefetch, workers
        self._rank, self._num_ranks, self._on_device = rank, num_ranks, on_device
        self._buffers = Buffers(spare=prefetch + workers)
        half = Shard.of(batch_size // 2, rank=rank, size=num_ranks)
        mine = np.arange(half.start, half.stop)
        self._places = np.concatenate([mine, mine + batch_size // 2])  # in the whole batch
        self._make_planner = make_planner
        self._augmentation_seed = stream_seed(seed, "data", "augmentation")
        self._prefill_seed = stream_seed(seed, "data", "prefill")
        self._sampler = DualSampler(
            source,
            batch_size=batch_size,
            identity_share=identity_share,
            seed=stream_seed(seed, "data", "dual"),
            order=order,
            identity_order=identity_order,
        )

    @property
    def steps_per_epoch(self) -> float:
        """An epoch is as many images as the source has, of both parts together."""
        return len(self.source) / self.batch_size

    def labels(self, step: int) -> Int64Array:
        """Labels of batch `step` of all ranks, int64 [B], without decoding an image."""
        return self.source.labels(self._sampler.indices(step))

    def batch(self, step: int, *, begins: bool = False) -> Batch:
        """Batch number `step`, made here and now, without a plan; `begins`: none was before."""
        here = self._places
        ask_for(self.source, self._sampler.ahead(step, begins=begins))
        return make_batch(
            self.source,
            self._sampler.indices(step)[here],
            _positions(step, self.batch_size)[here],
            seed=self._augmentation_seed,
            augmentation=self.augmentation,
            num_images=self.batch_size,
            on_device=self._on_device,
            buffers=self._buffers,
        )

    def prefill(self, num_identities: int) -> Iterator[Batch]:
        """One augmented image of each identity, to fill a pool of `num_identities` slots with.

        Those that the first pass shows last, the very last one first. Each batch has at least half
        a batch of images, and less than a whole one, where there are so many. Of several ranks each
        makes its part of every batch.
        """
        wanted = min(num_identities, self.source.num_identities)
        size = self.batch_size // 2  # the gallery's batches in training
        parts = np.array_split(np.arange(wanted), max(1, wanted // size))

        def make(number: int) -> Batch:
            mine = Shard.of(len(parts[number]), rank=self._rank, size=self._num_ranks)
            places = parts[number][mine.start : mine.stop]
            return make_batch(
                self.source,
                self._sampler.shown_last(places),
                places,
                seed=self._prefill_seed,
                augmentation=self.augmentation,
                num_images=len(parts[number]),
                on_device=self._on_device,
                buffers=self._buffers,
            )

        numbers = iter(range(len(parts)))
        return made_ahead(make, numbers, prefetch=self.prefetch, workers=self.workers)

    def batches(
        self, start_step: int = 0, stop_step: int | None = None
    ) -> Iterator[DualBatch[PlanT]]:
        """Batches [start_step, stop_step), or without end."""
        images = self._images(start_step, stop_step)
        if self._make_planner is None:
            return (DualBatch(**vars(batch), plan=None) for batch in images)
        return self._planned(self._make_planner, images, step_numbers(start_step, stop_step))

    def _planned(
        self,
        make_planner: Callable[[], Planner[PlanT]],
        batches: Iterator[Batch],
        steps: Iterator[int],
    ) -> Generator[DualBatch[PlanT], None, None]:
        planner = make_planner()

        def plan(step: int) -> PlanT:
            x_labels, y_labels = np.split(self.labels(step), 2)
            return planner.plan(x_labels, y_labels)

        with ExitStack() as threads:
            # One thread makes the plans, since each starts from the one before.
            plans = made_ahead(plan, steps, prefetch=self.prefetch, workers=1)
            for made in (plans, batches):
                if isinstance(made, Generator):
                    threads.enter_context(closing(made))
            for batch, planned in zip(batches, plans, strict=True):
                yield DualBatch(**vars(batch), plan=planned)

    def _images(self, start_step: int, stop_step: int | None) -> Iterator[Batch]:
        return made_ahead(
            lambda step: self.batch(step, begins=step == start_step),
            step_numbers(start_step, stop_step),
            prefetch=self.prefetch,
            workers=self.workers,
        )


def _positions(step: int, count: int) -> Int64Array:
    return np.arange(step * count, (step + 1) * count, dtype=np.int64)


def _check_pairs(count: int, batch_size: int, identity_share: float) -> None:
    if identity_share > 0 and count == 0:
        raise ConfigError(
            f"identity_share is {identity_share:g}, but of a batch of {batch_size} images that is "
            f"no pair; set pool.identity_share to 0 or to {2 / batch_size:g} at least, or raise "
            "train.batch_size"
        )


def _check_everyone_has_images(source: GroupedSource) -> None:
    _, counts = source.images_of(np.arange(source.num_identities))
    if counts.min() < 1:
        name = source.identity_names[int(counts.argmin())]
        raise DataError(f"{source.name}: {name!r} has no image; leave such people out")

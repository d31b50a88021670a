"""Steps of a whole training, as `manyface train` makes them: speed, and the share of each part.

Method, loader, update and schedule are those that train/ builds from the recipe, and train/step.py
makes the steps; parts.py watches. Nothing is evaluated or written but rows that lie in
files. A recipe on synthetic faces gets JPEG records in memory in their place (pictures.py), so that
its loader decodes. Without the loader, batches are made before the first step: labels and plans of
their own, the images of the first.

The figures of a training that ran:

    images_per_second  distinct training images of a step / median seconds of a step; F2C looks at
                       each twice and counts it once
    images             of a step: batch x accumulation
    num_identities     of the data
    step_seconds       median, min, max, after the warm-up
    warmup_seconds     of the steps before, compilation among them
    shares             part (parts.py) -> its share of the seconds of all steps measured
    loader             seconds_per_image of one worker alone: decode, augmentation; workers, threads
                       that decode, and whether batches came from it (`on`)
    precision          fp32 or bf16
    resident_bytes     anonymous + shared memory before the first step, the process included
    peak_extra_bytes   the most in a step of the warm-up, above that
    peak_device_bytes  the most that torch held on a GPU; None elsewhere

What cannot fit has `fits` false, `needed_bytes` (a lower bound: class centers and momentum, or what
is there, activations and pixels) and `available_bytes`; what died, `error`.

On an accelerator, borders between parts wait for the device; so steps are made twice there, for
their time without these borders, then for the shares.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch

from manyface.base.errors import ConfigError
from manyface.base.threads import cpu_threads, use_one_core
from manyface.bench.measure import spread
from manyface.bench.parts import PARTS, Stopwatch, watched
from manyface.bench.pictures import JpegRecords
from manyface.bench.pool import full_pool
from manyface.bench.process import Figures
from manyface.bench.room import DoesNotFitError, Room, activation_bytes, center_bytes
from manyface.config import Config
from manyface.data import Batch, DecodedImages, DualLoader, GroupedSource, Loader
from manyface.heads import F2C
from manyface.heads.pool_plan import StepPlan
from manyface.observe.memory import (
    MemoryMeter,
    give_back_freed,
    peak_device_bytes,
    resident_bytes,
)
from manyface.train.build import build_method_for, build_plan
from manyface.train.build_data import build_loader, build_source
from manyface.train.build_model import build_precision
from manyface.train.checks import check_batch_size
from manyface.train.devices import choose_device
from manyface.train.loop import BatchSource, batches_of_steps
from manyface.train.method import PoolTraining
from manyface.train.step import FiniteGuard, train_step

Report = Callable[[str], None]
Seconds = dict[str, float]
_WARM_UP = 2  # steps: one compiles and allocates, in another all is there


@dataclass(frozen=True)
class TrainingOptions:
    """What is measured of a recipe.

    Attributes:
        loader: batches are decoded and augmented beside the steps; False: made before them.
        steps: measured.
    """

    loader: bool = True
    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, got {self.steps}")


def measure_training(config: Config, options: TrainingOptions, *, report: Report) -> Figures:
    """Figures of the recipe's steps, in this process, which should do nothing else."""
    device = choose_device(config.run.device)
    room = Room(device)
    try:
        with cpu_threads(config.run.threads):
            report("building")
            training = _build(config, device, room=room, report=report)
            stepping = activation_bytes(training.method, config) + training.pixel_bytes
            room.check(resident_bytes() + stepping)
            return training.figures(options)
    except DoesNotFitError as error:
        return {"fits": False, "needed_bytes": error.needed, "available_bytes": room.free}


def _build(config: Config, device: torch.device, *, room: Room, report: Report) -> "_Training":
    if config.data.is_synthetic:  # before there is anything to count
        room.check(center_bytes(config, config.data.synthetic.num_identities))
    source = training_source(config, warn=report)
    check_batch_size(config.train.batch_size, source)
    room.check(center_bytes(config, source.num_identities))
    return _Training(config, source, device=device, report=report)


def training_source(config: Config, *, warn: Report) -> GroupedSource:
    """The recipe's images; for synthetic faces JPEG records in memory, never kept decoded."""
    if not config.data.is_synthetic:
        return build_source(config, warn=warn)
    people, size = config.data.synthetic, config.data.image_size
    records = JpegRecords(people.num_identities, people.images_per_identity, image_size=size)
    return DecodedImages(records, image_size=size, threads=config.data.threads, cache=0)


class _Training:
    """What train/ builds of a recipe, and its steps one after the other."""

    def __init__(
        self, config: Config, source: GroupedSource, *, device: torch.device, report: Report
    ) -> None:
        self.autocast = build_precision(config, device, warn=report)
        self.method = build_method_for(config, source, device=device, autocast=self.autocast)
        if isinstance(self.method, PoolTraining):
            fill_pool(self.method.f2c)
        self.loader = build_loader(config, source, self.method)
        self.plan = build_plan(config, self.loader.steps_per_epoch / config.optimizer.accumulation)
        self._watch, self._guard = Stopwatch(device), FiniteGuard(device)
        self._report, self._done = report, 0

    @property
    def pixel_bytes(self) -> int:
        """Of the batches that are there at once, float32: the step's, and those made ahead."""
        loader = self.loader
        image = 3 * loader.source.image_size**2 * torch.float32.itemsize
        return (1 + loader.prefetch) * loader.batch_size * image

    def figures(self, options: TrainingOptions) -> Figures:
        """Warm up, measure."""
        found = self._loader_figures(options)
        # Beside an accelerator the host runs ahead, which splitting a step would hide.
        twice = self.method.device.type != "cpu"
        warm_up = max(_WARM_UP, self.loader.prefetch)  # what is made ahead hides the loader's speed
        with self._batches(options, warm_up + (1 + twice) * options.steps) as feed:
            give_back_freed()
            before = resident_bytes()
            with watched(self.method, self._watch):
                with MemoryMeter(interval_seconds=0.002) as meter:  # not while time is taken
                    first = self._steps(feed, warm_up, splits=False)
                    peak = meter.peak_bytes - before
                timed = self._steps(feed, options.steps, splits=not twice)
                split = self._steps(feed, options.steps, splits=True) if twice else timed
        return {
            **self._speed(timed),
            "warmup_seconds": sum(map(total, first)),
            "shares": shares(split),
            "loader": found,
            "precision": "fp32" if self.autocast is None else "bf16",
            "resident_bytes": before,
            "peak_extra_bytes": peak,
            "peak_device_bytes": peak_device_bytes(self.method.device),
        }

    def _speed(self, steps: Sequence[Seconds]) -> Figures:
        seconds = spread(list(map(total, steps)))
        images = self.loader.batch_size * self.plan.accumulation
        return {
            "fits": True,
            "images_per_second": images / seconds["median"],
            "images": images,
            "num_identities": self.loader.source.num_identities,
            "step_seconds": seconds,
        }

    def _loader_figures(self, options: TrainingOptions) -> Figures:
        self._report("the loader alone")
        found = {"on": options.loader, "workers": self.loader.workers}
        return {**found, "seconds_per_image": loader_seconds(self.loader)}

    @contextmanager
    def _batches(self, options: TrainingOptions, steps: int) -> Iterator[Iterator[list[Batch]]]:
        """Batches of so many steps, from the loader's threads or made now."""
        each = self.plan.accumulation
        source = self.loader if options.loader else MadeBefore(self.loader, steps * each)
        with closing(batches_of_steps(source, 0, steps, each)) as feed:
            yield feed

    def _steps(self, feed: Iterator[list[Batch]], count: int, *, splits: bool) -> list[Seconds]:
        return [self._step(feed, splits=splits) for _ in range(count)]

    def _step(self, feed: Iterator[list[Batch]], *, splits: bool) -> Seconds:
        """Seconds of each part of the next step; all of them under the first where not `splits`."""
        self._report(f"step {self._done + 1}")
        self._watch.splits = splits
        self._watch.start(PARTS[0])
        train_step(
            self.method,
            next(feed),
            step=self._done,
            factor=self.plan.schedule.factor(self._done),
            seed=self.plan.seed,
            guard=self._guard,
        )
        self._done += 1
        return self._watch.stop()


class MadeBefore:
    """The first batches of a loader, made at once; their images are those of the first one."""

    def __init__(self, loader: BatchSource, count: int) -> None:
        self._batches: list[Batch] = []
        for batch in loader.batches(0, count):
            images = self._batches[0].images if self._batches else batch.images
            self._batches.append(replace(batch, images=images))

    def batches(self, start_step: int = 0, stop_step: int | None = None) -> Iterator[Batch]:
        """As of a loader."""
        return iter(self._batches[start_step:stop_step])


def loader_seconds(loader: Loader | DualLoader[StepPlan]) -> dict[str, float]:
    """Seconds an image takes one worker with nothing beside it, decoding and augmentation.

    Of the quickest of some batches; the worker keeps to one core, but for `data.threads` that
    decode.
    """
    watch, source = Stopwatch(torch.device("cpu")), loader.source
    load = watch.around(source.load, before="decode", after="augmentation")
    with patch.object(source, "load", load), ThreadPoolExecutor(1, initializer=use_one_core) as one:
        batches = []
        for step in range(4):
            watch.start("decode")
            one.submit(loader.batch, step).result()
            batches.append(watch.stop())
    return {part: each / loader.batch_size for part, each in min(batches, key=total).items()}


def fill_pool(f2c: F2C) -> None:
    """Somebody in every slot, as after long training; the rows are random from the beginning."""
    full = full_pool(f2c.pool.num_slots, f2c.num_identities)
    slots = {name: torch.from_numpy(values) for name, values in vars(full).items()}
    f2c.set_extra_state({**f2c.get_extra_state(), **slots})


def total(seconds: Seconds) -> float:
    """Of all parts."""
    return sum(seconds.values())


def shares(steps: Sequence[Seconds]) -> Seconds:
    """Part -> its share of the seconds of all steps."""
    everything = sum(map(total, steps))
    return {part: sum(each.get(part, 0.0) for each in steps) / everything for part in PARTS}

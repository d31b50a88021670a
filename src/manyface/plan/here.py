"""A plan for this machine: its parts are measured on small copies, in some seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from manyface.base.errors import DataError
from manyface.base.threads import cpu_threads
from manyface.centers.place import disk_bytes, free_bytes
from manyface.centers.table import DRAWN_ROWS
from manyface.config import Config
from manyface.data import GroupedSource
from manyface.observe.memory import MemoryMeter, give_back_freed, resident_bytes
from manyface.plan.head import HeadCosts, active_rows, head_costs
from manyface.plan.measuring import changed, placement, seconds_of
from manyface.plan.net import NetCosts, net_costs
from manyface.plan.prediction import Bytes, Prediction, Seconds
from manyface.train.build import build_schedule
from manyface.train.build_data import build_loader, build_source, loader_workers
from manyface.train.devices import choose_device, describe_device

Report = Callable[[str], None]
# What libraries keep once they have run, and of each byte that is alive the allocator holds more:
# chosen on the recipes of benchmarks/plan_calibration.json, not on those it is judged by.
_LIBRARIES = 90 * 2**20
_ALLOCATOR = 1.25


def plan_here(
    config: Config, *, identities: int | None, report: Report, timed: bool = True
) -> Prediction:
    """What `config` takes on the device that it names, in one process.

    Args:
        config: the recipe.
        identities: number of classes; None counts those of the data.
        report: is told what goes on.
        timed: whether to measure seconds; without it they are 0.

    Raises:
        ManyfaceError: the recipe cannot be built, or its data cannot be read and `identities` is
            not given.
    """
    device = choose_device(config.run.device)
    with cpu_threads(config.run.threads):
        process = resident_bytes()
        report("reading the data")
        source = _source(config, identities)
        count = identities or (source.num_identities if source else 0)
        report("the net")
        net = net_costs(config, device=device, timed=timed, source=source)
        report("the head")
        batch = config.train.batch_size
        head = head_costs(config, count, batch_size=batch, device=device, timed=timed)
        report("the loader")
        loader = None if source is None else _loader_costs(config, source)
        available, on_cpu = _available(device), device.type == "cpu"
        return Prediction(
            method=config.head.method,
            identities=count,
            active=head.active,
            batch_size=batch,
            ranks=1,
            bytes=_all_bytes(config, net, head, loader, process=process)
            if on_cpu
            else device_bytes(config, net, head, context=0, available=available),
            seconds=_seconds(config, net, head, loader),
            available=available,
            where=f"{describe_device(device)}, measured on small copies",
            steps=None if source is None else _steps(config, len(source)),
            head_of_all=_head_of_all(config, head, count),
            accumulation=config.optimizer.accumulation,
            disk=_disk(config),
            host=None if on_cpu else host_bytes(config, head, loader, process=process),
            host_available=None if on_cpu else _available(torch.device("cpu")),
        )


def device_bytes(
    config: Config, net: NetCosts, head: HeadCosts, *, context: int, available: int
) -> Bytes:
    """Bytes of one rank on a GPU; rows that lie elsewhere come to it for a step."""
    here = placement(config) == "device"
    lists, making = _list_bytes(head)
    found = Bytes(
        process=context,
        backbone=net.held + net.gradients,
        rows=head.rows if here else 0,
        state=lists + (head.state if here else 0),
        activations=int(net.activations.at(config.train.batch_size)),
        head=max(head.stepping, making),
        files=head.rows + head.state if placement(config) == "file" else 0,
    )
    is_staged = not here and config.head.method == "partial"
    staged = _staged(head, available - found.peak) if is_staged else 0
    return replace(found, head=found.head + staged)


def host_bytes(
    config: Config, head: HeadCosts, loader: "LoaderCosts | None", *, process: int
) -> Bytes:
    """Bytes of one rank in host memory beside a GPU."""
    here = placement(config) == "host"
    return Bytes(
        process=process,
        rows=head.rows if here else 0,
        state=head.state if here else 0,
        loader=_loading_bytes(config, loader),
        building=_drawing_bytes(config, head),
    )


def _all_bytes(
    config: Config, net: NetCosts, head: HeadCosts, loader: "LoaderCosts | None", *, process: int
) -> Bytes:
    """Bytes of one process that computes on the CPU: all of them in host memory."""
    in_files = placement(config) == "file"
    lists, making = _list_bytes(head)
    return Bytes(
        process=process + _LIBRARIES,
        backbone=net.held + net.gradients,
        rows=0 if in_files else head.rows,
        state=lists + (0 if in_files else head.state),
        activations=int(_ALLOCATOR * net.activations.at(config.train.batch_size)),
        head=max(head.stepping, making),
        loader=_loading_bytes(config, loader),
        building=_drawing_bytes(config, head),
        files=head.rows + head.state if in_files else 0,
    )


def _list_bytes(head: HeadCosts) -> tuple[int, int]:
    return (0, 0) if head.lists is None else (head.lists.held, head.lists.making)


def _staged(head: HeadCosts, left: int) -> int:
    """Rows of this step and of the next; none where they are half of what is left
    (centers/staging.py)."""
    return 2 * head.moving if 2 * head.moving <= left else 0


def _drawing_bytes(config: Config, head: HeadCosts) -> int:
    dim = config.backbone.embedding_size
    identities = head.rows // (dim * 2)  # at most; a small table is drawn at once
    return 3 * 4 * min(torch.get_num_threads() * DRAWN_ROWS, identities) * dim


def _source(config: Config, identities: int | None) -> GroupedSource | None:
    """The data; None where they are not here and the number of identities is given."""
    try:
        return build_source(config, warn=lambda text: None)
    except DataError:
        if identities is None:
            raise
        return None


@dataclass(frozen=True)
class LoaderCosts:
    """Of one batch: processor seconds, and bytes beside it while it is made."""

    seconds: float
    bytes: int


def _loader_costs(config: Config, source: GroupedSource) -> LoaderCosts:
    """Measured on a batch of no more than 32 images."""
    images = min(config.train.batch_size, 32, len(source)) // 2 * 2
    loader = build_loader(changed(config, "train", batch_size=images), source, None)
    give_back_freed()
    before = resident_bytes()
    with MemoryMeter(interval_seconds=0.002) as meter:
        loader.batch(0)
    seconds = seconds_of(lambda: loader.batch(1), clock=time.process_time)
    beside = max(0, meter.peak_bytes - before) * loader_workers()
    return LoaderCosts(seconds * config.train.batch_size / images, beside)


def _loading_bytes(config: Config, loader: LoaderCosts | None) -> int:
    """Batches made ahead and in the making, float32 pixels, and the one that is trained on; what
    takes room beside them while they are made."""
    pixels = config.train.batch_size * 3 * config.data.image_size**2
    return (2 * loader_workers() + 2) * pixels * 4 + (0 if loader is None else loader.bytes)


def _seconds(config: Config, net: NetCosts, head: HeadCosts, loader: LoaderCosts | None) -> Seconds:
    accumulation = config.optimizer.accumulation
    alone = 0.0 if net.seconds is None else net.seconds.at(config.train.batch_size)
    backbone = accumulation * alone
    of_head = accumulation * (head.seconds or 0.0)
    loading = None if loader is None else accumulation * loader.seconds
    exposed = accumulation * config.train.batch_size * (net.exposed or 0.0)
    lists = 0.0 if head.lists is None else head.lists.seconds or 0.0
    return Seconds(backbone, of_head, loading, exposed, lists=lists)


def _available(device: torch.device) -> int:
    own = resident_bytes() if device.type == "cpu" else 0
    return own + (free_bytes(device) or 0)


def _disk(config: Config) -> int | None:
    folder = config.head.placement_folder
    return None if placement(config) != "file" or folder is None else disk_bytes(folder)


def _steps(config: Config, images: int) -> int:
    per_epoch = images / config.train.batch_size / config.optimizer.accumulation
    return build_schedule(config, per_epoch).num_steps


def _head_of_all(config: Config, head: HeadCosts, identities: int) -> float | None:
    if config.head.method != "partial" or head.seconds is None:
        return None
    everyone = active_rows(changed(config, "head", method="full"), identities, batch_size=1)
    return head.seconds * everyone / head.active * config.optimizer.accumulation

"""A plan for GPUs that are not here: bytes are counted as for this machine, seconds are computed.

Rates are those of data sheets, dense, times a share that a careful implementation reaches. Nothing
of it was measured: take the seconds as what to hope for, the bytes as what to expect.
"""

from dataclasses import replace
from functools import cache
from math import ceil

import torch

from manyface.backbones import backbone_cost
from manyface.base.errors import ConfigError
from manyface.checkpoint.background import SHARE_OF_FREE
from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS, HeadConfig
from manyface.observe.memory import resident_bytes
from manyface.plan.gpus import MACHINE, Cluster, Gpu
from manyface.plan.head import HeadCosts, head_costs
from manyface.plan.here import device_bytes, host_bytes
from manyface.plan.measuring import changed, placement
from manyface.plan.net import NetCosts, net_costs
from manyface.plan.prediction import Bytes, Prediction, Seconds
from manyface.plan.saving import saving
from manyface.plan.traffic import (
    EMBEDDING,
    LATENCY,
    LATENCY_OF_DOUBLING,
    OF_LINK,
    Collective,
    collectives,
)
from manyface.train.checks import check_ranks
from manyface.train.run import staging_bytes

_HERE = torch.device("cpu")
_CONTEXT = 700 * 2**20  # of a process on a GPU: CUDA's context and libraries
_LIBRARY = 512 * 2**20  # of its collectives, buffers for each neighbour
_OF_NET, _OF_HEAD, _OF_MEMORY = 0.8, 0.5, 0.8
_PASSES = 3  # over activations: written, read, and their gradients
_MOST_TRIED = 4096  # GPUs


def plan_for_gpus(config: Config, *, identities: int, cluster: Cluster) -> Prediction:
    """What `config` takes on `cluster`, class centers sharded over its GPUs.

    Raises:
        ConfigError: the batch, which is that of all GPUs, is too small for so many; or the method
            does not train on several.
    """
    batch_size, config = config.train.batch_size, _of_a_rank(config, cluster)
    net, head = _parts(config, identities, cluster)
    on_device, in_host = _bytes(config, net, head, cluster)
    seconds, everyone = _seconds(config, identities, net, head, cluster)
    said = _collectives(config, net, head, cluster)
    seconds = replace(seconds, communication=sum(each.waited for each in said))
    return Prediction(
        method=config.head.method,
        identities=identities,
        active=head.active,
        batch_size=batch_size,
        ranks=cluster.gpus,
        bytes=on_device,
        seconds=seconds,
        available=cluster.sheet.memory,
        where=f"{_where(cluster)}, computed from data sheets, not measured",
        steps=None,
        head_of_all=everyone if config.head.method == "partial" else None,
        accumulation=config.optimizer.accumulation,
        collectives=said,
        saving=saving(
            cluster,
            rows=head.rows + head.state,
            replicated=net.held,
            host_free=cluster.host_memory - in_host.peak,
            staging=staging_bytes(config),
            step_seconds=seconds.step,
        ),
        assumptions=_assumptions(config, cluster),
        host=in_host,
        host_available=cluster.host_memory,
    )


def fewest_gpus(config: Config, *, identities: int, cluster: Cluster) -> int | None:
    """The smallest number of GPUs of this kind on which `config` fits; None up to 4,096, or up to
    where the batch is too small to be shared out."""
    for gpus in range(1, _MOST_TRIED + 1):
        there = replace(cluster, gpus=gpus)
        try:
            of_a_rank = _of_a_rank(config, there)
        except ConfigError:
            return None
        on_device, in_host = _bytes(of_a_rank, *_parts(of_a_rank, identities, there), there)
        if on_device.peak <= there.sheet.memory and in_host.peak <= there.host_memory:
            return gpus
    return None


def _of_a_rank(config: Config, cluster: Cluster) -> Config:
    """The recipe with the batch of the fullest rank, and with the precision that it takes there."""
    batch_size = config.train.batch_size
    check_ranks(batch_size, cluster.gpus, method=config.head.method)
    shared = ceil(batch_size / cluster.gpus)
    if config.head.method == "f2c":
        shared = 2 * ceil(batch_size // 2 / cluster.gpus)
    config = changed(config, "train", batch_size=shared)
    if config.run.precision != "auto":
        return config
    return changed(config, "run", precision="fp32" if cluster.gpu == "v100" else "bf16")


def _where(cluster: Cluster) -> str:
    several = f" in {cluster.machines} machines" if cluster.machines > 1 else ""
    return f"{cluster.gpus} x {cluster.gpu}{several}"


def _parts(config: Config, identities: int, cluster: Cluster) -> tuple[NetCosts, HeadCosts]:
    """Costs of the net, and of the head of a rank that has most rows."""
    head = head_costs(
        _slots_of_a_rank(config, cluster.gpus),
        -(-identities // cluster.gpus),
        batch_size=config.train.batch_size * cluster.gpus,
        ranks=cluster.gpus,
        device=_HERE,
        timed=False,
    )
    return _net(_for_the_net(config)), head


def _slots_of_a_rank(config: Config, ranks: int) -> Config:
    """A pool whose slots are given by number is spread over the ranks; a share is of each one's."""
    if config.head.method != "f2c" or config.pool.slots is None:
        return config
    return changed(config, "pool", slots=-(-config.pool.slots // ranks))


def _for_the_net(config: Config) -> Config:
    """Without what makes no difference to the net, so that it is measured once."""
    if config.head.method not in WITHOUT_CENTERS:
        config = config.model_copy(update={"head": HeadConfig.model_validate({})})
    return changed(config, "train", batch_size=2)


@cache
def _net(config: Config) -> NetCosts:
    return net_costs(config, device=_HERE, timed=False)


def _bytes(config: Config, net: NetCosts, head: HeadCosts, cluster: Cluster) -> tuple[Bytes, Bytes]:
    """Of a rank: on its GPU, in host memory."""
    available = cluster.sheet.memory
    found = device_bytes(config, net, head, context=_CONTEXT, available=available)
    if cluster.gpus > 1:
        batch, dim = config.train.batch_size * cluster.gpus, config.backbone.embedding_size
        gathered = batch * (EMBEDDING * dim + 8)
        found = replace(found, exchange=net.gradients + gathered + _LIBRARY)
    return found, host_bytes(config, head, None, process=_resident())


@cache
def _resident() -> int:
    return resident_bytes()


def _seconds(
    config: Config, identities: int, net: NetCosts, head: HeadCosts, cluster: Cluster
) -> tuple[Seconds, float]:
    """Without what ranks say; and of the head if all classes took part."""
    gpu, images = cluster.sheet, config.train.batch_size * cluster.gpus
    times = config.optimizer.accumulation
    lists = _list_seconds(config, identities, gpu) / cluster.gpus if head.lists else 0.0
    found = Seconds(
        backbone=times * _net_seconds(config, net, gpu),
        head=times * _head_seconds(config, head, gpu, images=images),
        loader=None,
        exposed=0.0,
        lists=lists,
        transfer=times * _transfer_seconds(config, head, gpu),
    )
    full = changed(config, "head", method="full", sample_rate=1.0)
    of_all = replace(head, active=-(-identities // cluster.gpus))
    return found, times * _head_seconds(full, of_all, gpu, images=images)


def _collectives(
    config: Config, net: NetCosts, head: HeadCosts, cluster: Cluster
) -> tuple[Collective, ...]:
    gpu, images = cluster.sheet, config.train.batch_size * cluster.gpus
    return collectives(
        config,
        cluster,
        active=head.active * cluster.gpus,
        gradients=net.gradients,
        statistics=net.statistics,
        net_seconds=_net_seconds(config, net, gpu),
        head_seconds=_head_seconds(config, head, gpu, images=images),
    )


@cache
def _macs(config: Config) -> int:
    """Of an image's forward pass."""
    options = config.backbone.model_dump(
        exclude={"name", "weights", "activation_checkpointing", "mask_ratio"}, exclude_defaults=True
    )
    name, size = config.backbone.name, config.data.image_size
    return backbone_cost(name, image_size=size, **options).macs_per_image


def _net_seconds(config: Config, net: NetCosts, gpu: Gpu) -> float:
    """Products, and on top of them what passes over activations: norms and activations do not hide.

    Forward and backward are three times the forward pass; F2C's gallery net is one more.
    """
    passes = 3 + (config.head.method == "f2c") + config.backbone.activation_checkpointing
    rate = gpu.bf16 if config.run.precision == "bf16" else gpu.fp32
    work = 2 * _macs(_for_the_net(config)) * passes * config.train.batch_size
    moved = _PASSES * net.activations.at(config.train.batch_size)
    return work / (_OF_NET * rate) + moved / (_OF_MEMORY * gpu.bandwidth)


def _head_seconds(config: Config, head: HeadCosts, gpu: Gpu, *, images: int) -> float:
    """Four products of images x rows, or the rows read twice and written once: the longer.

    The pool has no row gradients and scores each image once: two products.
    """
    dim, half = config.backbone.embedding_size, "bfloat16"
    scored = head.active * config.head.sub_centers
    is_half = half in (config.head.dtype, config.head.operands)
    products = 4 if config.head.method in ("full", "partial") else 2
    work = products * 2.0 * images * scored * dim
    share = scored * (head.rows + head.state) / max(1, head.rows) * dim
    moved = 3.0 * share * (2 if config.head.dtype == half else 4)
    rate = gpu.bf16 if is_half else gpu.fp32
    return max(work / (_OF_HEAD * rate), moved / (_OF_MEMORY * gpu.bandwidth))


def _list_seconds(config: Config, identities: int, gpu: Gpu) -> float:
    """Cosines of N / R classes with all N, in float32 (heads/hard.py)."""
    rows = float(identities) * config.head.sub_centers
    work = 2 * rows**2 * config.backbone.embedding_size / (config.head.hard_refresh_steps or 1)
    return work / (_OF_HEAD * gpu.fp32)


def _transfer_seconds(config: Config, head: HeadCosts, gpu: Gpu) -> float:
    """Rows and state of a step from host memory and back; a disk below them is not counted."""
    if placement(config) == "device":
        return 0.0
    return 2 * head.moving / (OF_LINK * gpu.pcie)


def _assumptions(config: Config, cluster: Cluster) -> tuple[str, ...]:
    """What the plan stands on, in sentences."""
    gpu = cluster.sheet
    half = config.run.precision == "bf16"
    found = [
        f"the net reaches {_OF_NET:.0%} of {(gpu.bf16 if half else gpu.fp32) / 1e12:.0f} TFLOP/s "
        f"({config.run.precision}), the head {_OF_HEAD:.0%}; activations pass memory {_PASSES} "
        f"times at {_OF_MEMORY:.0%} of {gpu.bandwidth / 1e12:.2f} TB/s",
        f"CUDA's context takes {_CONTEXT / 2**30:.1f} GiB; nothing waits for data",
    ]
    if cluster.gpus > 1:
        found += _assumptions_of_ranks(cluster)
    return (
        *found,
        f"host memory: {cluster.host_memory / 2**30:.0f} GiB for each GPU (--host-gib); a "
        f"checkpoint may take {_staging(config)} while it is written",
        f"a machine writes checkpoints at {cluster.disk_gb:g} GB/s (--disk-gb)",
    )


def _assumptions_of_ranks(cluster: Cluster) -> list[str]:
    network = f"{cluster.network_gbit:g} Gbit/s of each GPU to other machines (--network-gbit), "
    rings = network if cluster.machines > 1 else ""
    return [
        f"rings over all GPUs, up to {MACHINE} in a machine: {cluster.sheet.link / 1e9:.0f} GB/s "
        f"inside one, {rings}so {cluster.ring_bandwidth / 1e9:.0f} GB/s around, of which "
        f"{OF_LINK:.0%} is reached",
        f"a collective takes {LATENCY * 1e6:.0f} us at least, {LATENCY_OF_DOUBLING * 1e6:.0f} us "
        "more for each doubling of machines; its library keeps "
        f"{_LIBRARY / 2**30:.1f} GiB, DDP a copy of the gradients",
        "half of the net's time hides its gradients' way, but for the last 25 MiB; half of the "
        "head's time that of the embeddings' gradients; the rest is waited for",
        "ranks have equal parts of a batch's own classes",
    ]


def _staging(config: Config) -> str:
    if config.train.staging_gib is None:
        return f"{SHARE_OF_FREE:g} of what training leaves (train.staging_gib)"
    return f"{config.train.staging_gib:g} GiB of it (train.staging_gib)"

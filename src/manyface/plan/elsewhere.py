"""A plan for GPUs that are not here: bytes are counted as for this machine, seconds are computed.

Rates are those of data sheets, dense, times a share that a careful implementation reaches. Nothing
of it was measured: take the seconds as what to hope for, the bytes as what to expect.
"""

from dataclasses import dataclass, replace

import torch

from manyface.backbones import backbone_cost
from manyface.base.errors import ConfigError
from manyface.config import Config
from manyface.observe.memory import resident_bytes
from manyface.plan.head import HeadCosts, head_costs
from manyface.plan.here import device_bytes, host_bytes
from manyface.plan.measuring import changed, placement
from manyface.plan.net import NetCosts, net_costs
from manyface.plan.prediction import Prediction, Seconds

_GB, _TERA = 10**9, 10**12
_CONTEXT = 700 * 2**20  # of a process on a GPU: CUDA's context and libraries
_OF_NET, _OF_HEAD, _OF_MEMORY, _OF_LINK = 0.8, 0.5, 0.8, 0.7
MOST_GPUS = 8  # of one machine: links to others are slower, and no data sheet has them
_PASSES = 3  # over activations: written, read, and their gradients


@dataclass(frozen=True)
class Gpu:
    """Data sheet: bytes of memory, operations a second in bf16 and fp32, bytes a second."""

    memory: int
    bf16: float
    fp32: float
    bandwidth: float
    link: float  # to one other GPU of the same machine, one way
    pcie: float  # to host memory, one way


GPUS = {
    "v100": Gpu(32 * _GB, 112 * _TERA, 14 * _TERA, 0.9e12, 150e9, 16e9),
    "a100": Gpu(80 * _GB, 312 * _TERA, 19.5 * _TERA, 2.0e12, 300e9, 32e9),
    "h100": Gpu(80 * _GB, 989 * _TERA, 67 * _TERA, 3.35e12, 450e9, 64e9),
    "h200": Gpu(141 * _GB, 989 * _TERA, 67 * _TERA, 4.8e12, 450e9, 64e9),
    "l40s": Gpu(48 * _GB, 362 * _TERA, 91.6 * _TERA, 0.864e12, 32e9, 32e9),
    "rtx4090": Gpu(24 * _GB, 165 * _TERA, 82.6 * _TERA, 1.0e12, 32e9, 32e9),
}


def plan_for_gpus(config: Config, *, identities: int, gpus: int, gpu: str) -> Prediction:
    """What `config` takes on so many GPUs of one machine, class centers sharded over them.

    `train.batch_size` is that of one GPU.
    """
    chosen = _find(gpu)
    if not 1 <= gpus <= MOST_GPUS:
        raise ConfigError(
            f"expected --gpus from 1 to {MOST_GPUS}, those of one machine, got {gpus}"
        )
    if config.run.precision == "auto":
        config = changed(config, "run", precision="bf16" if gpu != "v100" else "fp32")
    here, process = torch.device("cpu"), resident_bytes()
    images = config.train.batch_size * gpus
    local = -(-identities // gpus)
    net = net_costs(config, device=here, timed=False)
    head = head_costs(config, local, batch_size=images, device=here, timed=False)
    travels = _travels(config, net.gradients, images=images, gpus=gpus)
    communication = sum(travels.values()) / (_OF_LINK * chosen.link)
    head_seconds = _head_seconds(config, head, chosen, images=images)
    seconds = Seconds(
        backbone=_net_seconds(config, net, chosen),
        head=head_seconds,
        loader=None,
        exposed=0.0,
        communication=communication,
        lists=_list_seconds(config, identities, chosen) / gpus if head.lists else 0.0,
        transfer=_transfer_seconds(config, head, chosen),
    )
    full = changed(config, "head", method="full", sample_rate=1.0)
    of_all = replace(head, active=local)
    everyone = _head_seconds(full, of_all, chosen, images=images)
    return Prediction(
        method=config.head.method,
        identities=identities,
        active=head.active,
        batch_size=config.train.batch_size,
        ranks=gpus,
        bytes=device_bytes(config, net, head, context=_CONTEXT, available=chosen.memory),
        seconds=seconds,
        available=chosen.memory,
        where=f"{gpus} x {gpu}, computed from its data sheet, not measured",
        steps=None,
        head_of_all=everyone if config.head.method == "partial" else None,
        travels=travels,
        host=host_bytes(config, head, None, process=process),
    )


def _find(name: str) -> Gpu:
    if name not in GPUS:
        raise ConfigError(f"no data sheet of GPU {name!r}; there are: {', '.join(GPUS)}")
    return GPUS[name]


def _net_seconds(config: Config, net: NetCosts, gpu: Gpu) -> float:
    """Products, and on top of them what passes over activations: norms and activations do not hide.

    Forward and backward are three times the forward pass; F2C's gallery net is one more.
    """
    options = config.backbone.model_dump(
        exclude={"name", "weights", "activation_checkpointing", "mask_ratio"}, exclude_defaults=True
    )
    cost = backbone_cost(config.backbone.name, image_size=config.data.image_size, **options)
    passes = 3 + (config.head.method == "f2c") + config.backbone.activation_checkpointing
    rate = gpu.bf16 if config.run.precision == "bf16" else gpu.fp32
    work = 2 * cost.macs_per_image * passes * config.train.batch_size
    moved = _PASSES * net.activations.at(config.train.batch_size)
    seconds = work / (_OF_NET * rate) + moved / (_OF_MEMORY * gpu.bandwidth)
    return config.optimizer.accumulation * seconds


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
    times = work / (_OF_HEAD * rate), moved / (_OF_MEMORY * gpu.bandwidth)
    return config.optimizer.accumulation * max(times)


def _list_seconds(config: Config, identities: int, gpu: Gpu) -> float:
    """Cosines of N / R classes with all N, in float32 (heads/hard.py)."""
    rows = float(identities) * config.head.sub_centers
    work = 2 * rows**2 * config.backbone.embedding_size / (config.head.hard_refresh_steps or 1)
    return work / (_OF_HEAD * gpu.fp32)


def _transfer_seconds(config: Config, head: HeadCosts, gpu: Gpu) -> float:
    """Rows and state of a step from host memory and back; a disk below them is not counted."""
    if placement(config) == "device":
        return 0.0
    return config.optimizer.accumulation * 2 * head.moving / (_OF_LINK * gpu.pcie)


def _travels(config: Config, gradients: int, *, images: int, gpus: int) -> dict[str, int]:
    """Bytes that one rank sends in a step, by collective; none where it is alone."""
    if gpus == 1:
        return {}
    share, dim = (gpus - 1) / gpus, config.backbone.embedding_size
    return {
        "labels, all-gather": int(8 * images * share),
        "embeddings, all-gather": int(2 * images * dim * share),
        "sums and targets, all-reduce": int(2 * 2 * 4 * images * share),
        "embedding gradients, reduce-scatter": int(4 * images * dim * share),
        "backbone gradients, all-reduce": int(2 * gradients * share),
    }

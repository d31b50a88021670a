"""Config -> what learns: backbone, head or pool, optimizer, precision (build.py has the rest)."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from manyface.backbones import AveragedNet, create_backbone, load_backbone_weights
from manyface.base.errors import ConfigError, ManyfaceError
from manyface.base.random import stream_seed
from manyface.centers import InFiles, InMemory, Place, RowAdamW, RowOptimizer, RowSGD
from manyface.centers.place import is_held
from manyface.checkpoint.foreign import ForeignCenters
from manyface.config import Config
from manyface.config.head import MARGIN_DEFAULTS, RULE_DEFAULTS
from manyface.data.dual import num_pairs
from manyface.heads import (
    F2C,
    CenterHead,
    DynamicClassPool,
    FullFC,
    PartialFC,
    SeveralHeads,
    VirtualFC,
)
from manyface.heads.balanced import ClassBalanced, balance_weights
from manyface.heads.hard import HardNegatives
from manyface.heads.sampling import FullyRandom, RowSampler, Strata
from manyface.heads.start import start_from
from manyface.margins import (
    AdaFace,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    InterclassFilter,
    MagFace,
    Margin,
    MVSoftmax,
    NegativeRule,
    NormFace,
    SphereFace,
)
from manyface.margins.schedules import StepValue, linear_value, sphereface_annealing
from manyface.parallel import Ranks
from manyface.train.checks import check_anchors, check_half_batch, check_slots
from manyface.train.devices import autocast_dtype, cpu_has_bf16
from manyface.train.method import Classification, Head, NetOptions, PoolTraining

Warn = Callable[[str], None]
Counts = npt.NDArray[np.int64]


def build_method(
    config: Config,
    num_identities: int,
    *,
    device: torch.device,
    autocast: torch.dtype | None,
    counts: Counts | None = None,
    identities_of_heads: Sequence[int] | None = None,
) -> Classification | PoolTraining:
    """Backbone, head or pool, and their optimizers on `device`; `counts` as in `build_head`,
    `identities_of_heads` where there are several."""
    backbone = build_backbone(config).to(device)
    learning = config.optimizer
    shared: NetOptions = {
        "learning_rate": learning.learning_rate,
        "device": device,
        "clip_norm": learning.clip_norm,
        "averaged": None,
        "autocast": autocast,
        "ranks": Ranks(),
    }
    if config.train.ema > 0:
        shared["averaged"] = AveragedNet(backbone, decay=config.train.ema)
    optimizer = build_optimizer(config, backbone)
    method: Classification | PoolTraining
    if config.head.method == "f2c":
        f2c = build_f2c(config, backbone, num_identities, device=device)
        method = PoolTraining(f2c, optimizer, **shared)
    else:
        head = (
            build_head(config, num_identities, device=device, counts=counts)
            if identities_of_heads is None
            else build_heads(config, identities_of_heads, device=device, counts=counts)
        )
        head_learning_rate = config.head.learning_rate or learning.learning_rate
        method = Classification(
            backbone, head, optimizer, head_learning_rate=head_learning_rate, **shared
        )
    if config.run.compile:
        backbone.compile()  # in place: the names of parameters stay, copies are not compiled
    return method


def build_backbone(config: Config) -> nn.Module:
    """The net with its first values, or with the weights of `backbone.weights`."""
    chosen = config.backbone
    # Only what was asked for: not every net has every option.
    options = chosen.model_dump(
        exclude={"name", "embedding_size", "weights"}, exclude_defaults=True
    )
    backbone = create_backbone(
        chosen.name,
        embedding_size=chosen.embedding_size,
        image_size=config.data.image_size,
        seed=stream_seed(config.run.seed, "backbone"),
        **options,
    )
    if not config.run.channels_last:
        backbone.channels_last = False  # else as the net has it: a vit has no use for it
    if chosen.weights is not None:
        load_backbone_weights(backbone, Path(chosen.weights))
    return backbone


def build_head(
    config: Config, num_identities: int, *, device: torch.device, counts: Counts | None = None
) -> Head:
    """The head over `num_identities` classes; sampler balanced needs `counts` of their images."""
    head = _new_head(config, num_identities, device=device, counts=counts)
    if config.head.weights is not None and isinstance(head, CenterHead):
        try:
            centers = ForeignCenters(config.head.weights)
            start_from(head, centers.num_rows, centers.rows)
        except ManyfaceError as error:
            raise ConfigError(f"head.weights: {error}") from error
    return head


def build_heads(
    config: Config, identities: Sequence[int], *, device: torch.device, counts: Counts | None = None
) -> SeveralHeads:
    """A head over each number of identities; `counts` of all of them."""
    if config.head.weights is not None:
        raise ConfigError("head.weights is for one head, but data.sets have heads of their own")
    heads, first = [], 0
    for number, each in enumerate(identities):
        mine = None if counts is None else counts[first : first + each]
        head = _new_head(config, each, device=device, counts=mine, number=number)
        assert isinstance(head, CenterHead)  # noqa: S101  (the schema sees to it)
        heads.append(head)
        first += each
    return SeveralHeads(heads)


def _new_head(
    config: Config,
    num_identities: int,
    *,
    device: torch.device,
    counts: Counts | None,
    number: int | None = None,
) -> Head:
    """`build_head` with the first values of its seed; `number` of several."""
    chosen = config.head
    shared: dict[str, Any] = {
        "num_classes": num_identities,
        "dim": config.backbone.embedding_size,
        "margin": build_margin(config),
        "scale": chosen.scale,
        "device": device,
    }
    if chosen.method == "virtual":
        return VirtualFC(num_anchors=_num_anchors(config, num_identities), **shared)
    shared |= {
        "optimizer": build_center_optimizer(config),
        "dtype": getattr(torch, chosen.dtype),
        "operands": None if chosen.operands == "same" else getattr(torch, chosen.operands),
        "place": build_place(config, number),
        "seed": stream_seed(config.run.seed, "head", *([] if number is None else [number])),
        "negatives": build_negatives(config),
        "label_smoothing": chosen.label_smoothing,
        "sub_centers": chosen.sub_centers,
        "schedules": build_schedules(config),
    }
    if chosen.method == "partial":
        if sampler := build_sampler(config, num_identities, counts):
            return PartialFC(sample_rate=chosen.sample_rate, sampler=sampler, **shared)
        return PartialFC(sample_rate=chosen.sample_rate, block=chosen.block, **shared)
    return FullFC(**shared)


def build_sampler(
    config: Config, num_identities: int, counts: Counts | None = None
) -> RowSampler | None:
    """How a partial head draws; None is its own way, uniform."""
    chosen = config.head
    if chosen.sampler == "strata":
        return Strata(chosen.strata or 1, chosen.block)
    if chosen.sampler == "random":
        return FullyRandom()
    if chosen.sampler == "balanced":
        if counts is None:
            raise ConfigError("head.sampler 'balanced' needs the number of images of each person")
        return ClassBalanced(balance_weights(counts, chosen.balance_power or 0.0))
    if chosen.sampler == "hard":
        return HardNegatives(
            num_identities,
            share=chosen.hard_share or 0.0,
            neighbours=chosen.hard_neighbours or 1,
            refresh_steps=chosen.hard_refresh_steps or 1,
        )
    return None


def build_center_optimizer(config: Config) -> RowOptimizer:
    """How class centers move."""
    chosen = config.head
    if chosen.optimizer == "adamw":
        return RowAdamW(
            weight_decay=chosen.weight_decay, row_wise_second_moment=chosen.row_wise_second_moment
        )
    return RowSGD(chosen.momentum, chosen.weight_decay, chosen.missed_steps)


def build_place(config: Config, number: int | None = None) -> Place | None:
    """Where class centers live, if not on the device; of several heads each has its folder."""
    chosen = config.head
    if chosen.placement_folder is not None:
        folder = Path(chosen.placement_folder) / ("" if number is None else f"head-{number}")
        try:
            return InFiles(folder_of_rank(str(folder), Ranks()))
        except ManyfaceError as error:
            raise ConfigError(f"head.placement_folder: {error}") from error
    return InMemory("cpu") if chosen.placement == "host" else None


def folder_of_rank(folder: str, ranks: Ranks) -> Path:
    """Of several ranks each has its own, since they may see one disk; those of other numbers of
    ranks go."""
    own = Path(folder) if ranks.is_alone else Path(folder) / f"{ranks.rank}-of-{ranks.size}"
    for other in Path(folder).glob("*-of-*"):
        count = other.name.partition("-of-")[2]
        names = {path.name for path in other.iterdir()} if other.is_dir() else {"a file"}
        only_rows = all(name.endswith((".rows", ".lock")) for name in names)
        if count != str(ranks.size) and only_rows and not is_held(other):
            shutil.rmtree(other, ignore_errors=True)  # other ranks may be at it
    return own


def build_f2c(
    config: Config, backbone: nn.Module, num_identities: int, *, device: torch.device
) -> F2C:
    """Probe net, gallery net and pool."""
    chosen = config.pool
    check_half_batch(config.train.batch_size)
    slots = num_slots(config, num_identities)
    half = min(config.train.batch_size // 2, num_identities)
    if chosen.rule == "hits_first" and slots < half:
        raise ConfigError(
            f"a pool of {slots} slots is smaller than half a batch ({half} images, perhaps all of "
            f"different people): raise pool.ratio to {min(1, 1.01 * half / num_identities):.3g} or "
            f"pool.slots to {half}, or lower train.batch_size"
        )
    pool = DynamicClassPool(
        slots,
        config.backbone.embedding_size,
        margin=build_margin(config),
        scale=config.head.scale,
        features=chosen.features,
        outlier_weight=chosen.outlier_weight,
        hard_negatives=chosen.hard_negatives,
        outlier_clip=chosen.outlier_clip,
        count_empty=chosen.count_empty,
        seed=stream_seed(config.run.seed, "pool"),
        device=device,
    )
    return F2C(
        backbone,
        pool,
        num_identities=num_identities,
        decay=chosen.decay,
        warmup=chosen.decay_warmup,
        gallery_norm=chosen.gallery_norm,
        num_passes=chosen.passes,
        rule=chosen.rule,
        reduction=chosen.reduction,
    )


def _num_anchors(config: Config, num_identities: int) -> int:
    anchors, batch_size = num_slots(config, num_identities), config.train.batch_size
    check_anchors(
        anchors,
        batch_size=batch_size,
        pairs=num_pairs(batch_size, config.pool.identity_share),
        num_identities=num_identities,
    )
    return anchors


def num_slots(config: Config, num_identities: int) -> int:
    """Slots of the pool, or anchors."""
    chosen = config.pool
    slots = chosen.slots or max(1, round((chosen.ratio or 0.0) * num_identities))
    check_slots(slots, num_identities)
    return slots


def build_margin(config: Config) -> Margin:
    """The margin; config has filled the parameters that belong to it, and no others."""
    make: dict[str, Callable[..., Margin]] = {
        "normface": NormFace,
        "cosface": CosFace,
        "arcface": ArcFace,
        "combined": CombinedMargin,
        "sphereface": SphereFace,
        "adaface": AdaFace,
        "magface": MagFace,
    }
    chosen = config.head
    return make[chosen.margin](
        **{key: getattr(chosen, key) for key in MARGIN_DEFAULTS[chosen.margin]}
    )


def build_schedules(config: Config) -> dict[str, StepValue]:
    """What changes with the updates; config has filled the parameters that belong to it."""
    chosen: Any = config.head
    schedules: dict[str, StepValue] = {}
    if chosen.margin_schedule == "linear":
        schedules["m"] = partial(
            linear_value, start=chosen.margin_start, end=chosen.m, num_steps=chosen.margin_steps
        )
    if chosen.margin_schedule == "sphereface":
        schedules["annealing"] = partial(
            sphereface_annealing,
            base=chosen.annealing_base,
            gamma=chosen.annealing_gamma,
            power=chosen.annealing_power,
            least=chosen.annealing,
        )
    if chosen.scale_schedule == "linear":
        schedules["scale"] = partial(
            linear_value, start=chosen.scale_start, end=chosen.scale, num_steps=chosen.scale_steps
        )
    return schedules


def build_negatives(config: Config) -> NegativeRule | None:
    """The rule for the negatives, if any."""
    chosen = config.head
    make: dict[str, Callable[..., NegativeRule]] = {
        "curricular": CurricularFace,
        "mv": MVSoftmax,
        "interclass_filter": partial(InterclassFilter, action="zero"),
        "interclass_remove": partial(InterclassFilter, action="remove"),
    }
    if chosen.negatives == "none":
        return None
    keys = RULE_DEFAULTS[chosen.negatives]
    return make[chosen.negatives](
        **{key.removeprefix("negatives_"): getattr(chosen, key) for key in keys}
    )


def build_optimizer(config: Config, backbone: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the backbone.

    Weight decay acts on matrices and kernels only. Norm weights, biases and PReLU slopes (all
    one-dimensional) go without: decaying them limits nothing, a norm undoes the scale of what came
    before it. insightface decays all of them.
    """
    chosen = config.optimizer
    learning = [p for p in backbone.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": chosen.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = chosen.fused or None  # None: as torch chooses, on GPUs several tensors at once
    if chosen.name == "adamw":
        return torch.optim.AdamW(groups, lr=chosen.learning_rate, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=chosen.learning_rate,
        momentum=chosen.momentum,
        nesterov=chosen.nesterov,
        fused=fused,
    )


def build_precision(config: Config, device: torch.device, *, warn: Warn) -> torch.dtype | None:
    """The autocast dtype, with a warning where it is slower than full precision."""
    if config.run.precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warn("run.precision is bf16, but this CPU has no bf16 instructions; fp32 is faster here")
    return autocast_dtype(config.run.precision, device)

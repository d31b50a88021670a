"""Config -> objects: the only place that knows both. Each function builds one thing.

Building does no training and writes nothing. The rooms below take plain arguments, so everything
here can be built by hand in a user's own loop just as well.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manyface.backbones import AveragedNet, create_backbone, load_backbone_weights
from manyface.base.errors import ConfigError, DataError, ManyfaceError
from manyface.base.random import stream_seed
from manyface.config import Config
from manyface.data import (
    Augmentation,
    DecodedImages,
    DualLoader,
    GroupedSource,
    ImageSource,
    Loader,
    find_text,
    open_records,
    read_people,
    select_records,
)
from manyface.data.loader import check_trainable
from manyface.data.synthetic import SyntheticFaces
from manyface.data.threads import usable_cores
from manyface.evaluate import (
    PairEvaluator,
    PairSet,
    identity_overlap,
    lfw_pairs,
    overlap_warning,
    synthetic_pairs,
)
from manyface.heads import F2C, DynamicClassPool, FullFC, PartialFC, VirtualFC
from manyface.heads.pool_plan import StepPlan
from manyface.margins import ArcFace, CombinedMargin, CosFace, Margin, NormFace
from manyface.train.checks import check_batch_size, single_images_warning
from manyface.train.devices import autocast_dtype, choose_device, cpu_has_bf16
from manyface.train.loop import Plan
from manyface.train.method import Classification, Head, NetOptions, PoolTraining
from manyface.train.prepare import Preparation
from manyface.train.schedule import Schedule

SYNTHETIC = "synthetic"
POOLED = ("f2c", "virtual")  # methods of the [pool] section, fed by the dual loader
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """Everything that a run needs, built and not yet started."""

    source: GroupedSource
    loader: Loader | DualLoader[StepPlan]
    method: Classification | PoolTraining
    preparation: Preparation | None
    plan: Plan
    evaluators: list[PairEvaluator]
    device: torch.device
    autocast: torch.dtype | None


def build_training(config: Config, *, warn: Warn) -> Training:
    """All objects of a run."""
    device = choose_device(config.run.device)
    autocast = build_precision(config, device, warn=warn)
    source = build_source(config, warn=warn)
    check_trainable(source)
    check_batch_size(config.train.batch_size, source)
    if text := single_images_warning(source):
        warn(text)
    method = build_method(config, source.num_identities, device=device, autocast=autocast)
    loader = build_loader(config, source, method)
    return Training(
        source=source,
        loader=loader,
        method=method,
        preparation=build_preparation(config, loader, method),
        plan=build_plan(config, loader.steps_per_epoch / config.optimizer.accumulation),
        evaluators=build_evaluators(config, source, warn=warn),
        device=device,
        autocast=autocast,
    )


# --- data -----------------------------------------------------------------------------------------


def build_source(config: Config, *, warn: Warn) -> GroupedSource:
    """The images to train on."""
    data = config.data
    if data.path == SYNTHETIC:
        return _synthetic_faces(
            config, first_identity=0, num_identities=data.synthetic.num_identities
        )
    with _naming("data.path"):
        records = open_records(data.path)
    with _naming("data.people"):
        people = None if data.people is None else read_people(find_text(records, data.people))
    if people is not None or data.min_images_per_identity > 1:
        records = select_records(records, people=people, min_images=data.min_images_per_identity)
    return DecodedImages(
        records,
        image_size=data.image_size,
        threads=data.threads,
        max_bad_share=data.max_bad_share,
        warn=warn,
    )


def build_loader(
    config: Config, source: GroupedSource, method: Classification | PoolTraining
) -> Loader | DualLoader[StepPlan]:
    """Shuffled, augmented batches of `source`, of the kind that `method` takes."""
    # A quarter of the cores makes batches; their number changes the speed, never the content.
    workers = max(1, usable_cores() // 4)
    shared: dict[str, Any] = {
        "batch_size": config.train.batch_size,
        "seed": config.run.seed,
        "augmentation": Augmentation(**config.augmentation.model_dump()),
        "prefetch": workers + 1,
        "workers": workers,
    }
    if config.head.method not in POOLED:
        return Loader(source, **shared)
    planner = method.f2c.planner if isinstance(method, PoolTraining) else None
    return DualLoader(
        source, identity_share=config.pool.identity_share, make_planner=planner, **shared
    )


def build_preparation(
    config: Config, loader: Loader | DualLoader[StepPlan], method: Classification | PoolTraining
) -> Preparation | None:
    """What a new run begins with, before its first step; None for nothing."""
    if not config.pool.prefill:
        return None
    if not isinstance(method, PoolTraining) or not isinstance(loader, DualLoader):
        return None  # Virtual FC reads little of [pool]
    num_slots = method.f2c.pool.num_slots
    if num_slots < 2:  # batch norm needs company
        raise ConfigError("pool.prefill needs at least 2 slots; raise pool.slots or pool.ratio")
    return Preparation("filling the pool", num_slots, partial(loader.prefill, num_slots))


def _synthetic_faces(config: Config, *, first_identity: int, num_identities: int) -> SyntheticFaces:
    chosen = config.data.synthetic
    with _naming("data.synthetic", kind=ConfigError):
        return SyntheticFaces(
            num_identities=num_identities,
            images_per_identity=chosen.images_per_identity,
            image_size=config.data.image_size,
            seed=chosen.seed,
            first_identity=first_identity,
            difficulty=chosen.difficulty,
        )


@contextmanager
def _naming(key: str, *, kind: type[ManyfaceError] = DataError) -> Iterator[None]:
    """Data that cannot be used are named by their key; where they are made up, it is to blame."""
    try:
        yield
    except DataError as error:
        raise kind(f"{key}: {error}") from error


# --- model ----------------------------------------------------------------------------------------


def build_method(
    config: Config, num_identities: int, *, device: torch.device, autocast: torch.dtype | None
) -> Classification | PoolTraining:
    """Backbone, head or pool, and their optimizers on `device`."""
    backbone = build_backbone(config).to(device)
    learning = config.optimizer
    shared: NetOptions = {
        "learning_rate": learning.learning_rate,
        "device": device,
        "clip_norm": learning.clip_norm,
        "averaged": None,
        "autocast": autocast,
    }
    if config.train.ema > 0:
        shared["averaged"] = AveragedNet(backbone, decay=config.train.ema)
    optimizer = build_optimizer(config, backbone)
    method: Classification | PoolTraining
    if config.head.method == "f2c":
        f2c = build_f2c(config, backbone, num_identities, device=device)
        method = PoolTraining(f2c, optimizer, **shared)
    else:
        head = build_head(config, num_identities, device=device)
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
    if chosen.weights is not None:
        load_backbone_weights(backbone, Path(chosen.weights))
    return backbone


def build_head(config: Config, num_identities: int, *, device: torch.device) -> Head:
    """The head over `num_identities` classes."""
    chosen = config.head
    shared: dict[str, Any] = {
        "num_classes": num_identities,
        "dim": config.backbone.embedding_size,
        "margin": build_margin(config),
        "scale": chosen.scale,
        "device": device,
    }
    if chosen.method == "virtual":
        return VirtualFC(num_anchors=_num_slots(config, num_identities), **shared)
    shared |= {
        "momentum": chosen.momentum,
        "weight_decay": chosen.weight_decay,
        "seed": stream_seed(config.run.seed, "head"),
    }
    if chosen.method == "partial":
        return PartialFC(sample_rate=chosen.sample_rate, **shared)
    return FullFC(**shared)


def build_f2c(
    config: Config, backbone: nn.Module, num_identities: int, *, device: torch.device
) -> F2C:
    """Probe net, gallery net and pool."""
    chosen = config.pool
    slots = _num_slots(config, num_identities)
    half = min(config.train.batch_size // 2, num_identities)
    if chosen.rule == "hits_first" and slots < half:
        raise ConfigError(
            f"a pool of {slots} slots is smaller than half a batch ({half} images, perhaps all of "
            f"different people): raise pool.ratio to {half / num_identities:.2g} or pool.slots to "
            f"{half}, or lower train.batch_size"
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


def _num_slots(config: Config, num_identities: int) -> int:
    chosen = config.pool
    return chosen.slots or max(1, round((chosen.ratio or 0.0) * num_identities))


def build_margin(config: Config) -> Margin:
    """The margin; config has filled the parameters that belong to it."""
    chosen = config.head
    gradient = chosen.gradient or "exact"
    if chosen.margin == "normface":
        return NormFace()
    if chosen.margin == "cosface":
        return CosFace(_given(chosen.m))
    if chosen.margin == "arcface":
        return ArcFace(_given(chosen.m), gradient=gradient)
    return CombinedMargin(
        _given(chosen.m1), _given(chosen.m2), _given(chosen.m3), gradient=gradient
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
    if chosen.name == "adamw":
        return torch.optim.AdamW(groups, lr=chosen.learning_rate)
    return torch.optim.SGD(
        groups,
        lr=chosen.learning_rate,
        momentum=chosen.momentum,
        nesterov=chosen.nesterov,
    )


def build_precision(config: Config, device: torch.device, *, warn: Warn) -> torch.dtype | None:
    """The autocast dtype, with a warning where it is slower than full precision."""
    if config.run.precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        warn("run.precision is bf16, but this CPU has no bf16 instructions; fp32 is faster here")
    return autocast_dtype(config.run.precision, device)


def _given(value: float | None) -> float:
    if value is None:
        raise ConfigError("a parameter of the margin is missing")
    return value


# --- plan -----------------------------------------------------------------------------------------


def build_plan(config: Config, steps_per_epoch: float) -> Plan:
    """Lengths in steps; `steps_per_epoch` counts updates."""
    every = config.evaluation
    evaluate_every = every.every_steps or 0
    if every.every_epochs:
        evaluate_every = max(1, round(every.every_epochs * steps_per_epoch))
    return Plan(
        schedule=build_schedule(config, steps_per_epoch),
        seed=config.run.seed,
        accumulation=config.optimizer.accumulation,
        log_every=config.train.log_every,
        evaluate_every=evaluate_every,
    )


def build_schedule(config: Config, steps_per_epoch: float) -> Schedule:
    """The learning-rate schedule; epochs become whole steps, rounded up."""
    chosen = config.schedule
    steps = chosen.steps or math.ceil((chosen.epochs or 0.0) * steps_per_epoch - 1e-6)
    warmup = chosen.warmup_steps or round(chosen.warmup_epochs * steps_per_epoch)
    return Schedule(
        num_steps=max(1, steps),
        warmup_steps=warmup,
        decay=chosen.decay,
        power=chosen.power,
        final_fraction=chosen.final_fraction,
    )


# --- evaluation -----------------------------------------------------------------------------------


def build_evaluators(
    config: Config, source: ImageSource | None, *, warn: Warn
) -> list[PairEvaluator]:
    """The sets to verify on; people who are in `source` too are warned of."""
    pairs = build_pairs(config, warn=warn)
    if pairs is None:
        return []
    if source is not None:
        names = pairs.identity_names()
        overlap = identity_overlap(source.identity_names, names)
        if text := overlap_warning(overlap, num_test=len(names), name=pairs.name):
            warn(text)
    return [PairEvaluator(pairs, fars=config.evaluation.fars)]


def build_pairs(config: Config, *, warn: Warn) -> PairSet | None:
    """The pairs of `evaluation.pairs`; None if there are none."""
    chosen = config.evaluation
    wanted = chosen.pairs or (SYNTHETIC if config.data.path == SYNTHETIC else None)
    if wanted is None:
        return None
    if wanted == SYNTHETIC:
        return _synthetic_pairs(config)
    with _naming("evaluation.path" if chosen.path else "data.path"):
        records = open_records(chosen.path or config.data.path)
    images = DecodedImages(
        records,
        image_size=config.data.image_size,
        threads=config.data.threads,
        max_bad_share=config.data.max_bad_share,
        substitute=False,
        warn=warn,
    )
    with _naming("evaluation.pairs"):
        text = find_text(records, wanted)
        return lfw_pairs(images, text, folds=chosen.folds, name=Path(wanted).stem)


def _synthetic_pairs(config: Config) -> PairSet:
    """Pairs of people whose numbers follow those of the training people: nobody is in both."""
    chosen = config.evaluation
    trained = config.data.synthetic.num_identities if config.data.path == SYNTHETIC else 0
    faces = _synthetic_faces(config, first_identity=trained, num_identities=chosen.num_identities)
    seed = stream_seed(config.data.synthetic.seed, "evaluation pairs")
    with _naming("evaluation", kind=ConfigError):
        pairs = synthetic_pairs(faces, num_pairs=chosen.num_pairs, folds=chosen.folds, seed=seed)
    return replace(pairs, name=SYNTHETIC)

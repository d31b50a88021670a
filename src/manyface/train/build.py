"""Config -> objects: with its three neighbours the only place that knows both.

Each function builds one thing: here a whole training and its plan, in build_data.py images and
batches, in build_model.py what learns, in build_pairs.py what judges.
Building does no training and writes nothing. The rooms below take plain arguments, so everything
here can be built by hand in a user's own loop just as well.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch

from manyface.base.errors import ConfigError
from manyface.config import Config
from manyface.data import DualLoader, GroupedSource, Loader
from manyface.data.loader import check_trainable
from manyface.evaluate import PairEvaluator
from manyface.heads.pool_plan import StepPlan
from manyface.parallel import Ranks
from manyface.train.build_data import (
    build_loader,
    build_source,
    identities_of_heads,
    images_of_each,
)
from manyface.train.build_model import Warn, build_method, build_precision
from manyface.train.build_pairs import build_evaluators
from manyface.train.checks import check_batch_size, check_ranks, single_images_warning
from manyface.train.devices import choose_device
from manyface.train.loop import Plan
from manyface.train.method import Classification, PoolTraining
from manyface.train.prepare import Preparation
from manyface.train.schedule import Schedule


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
    ranks: Ranks


def build_training(config: Config, *, warn: Warn) -> Training:
    """All objects of a run, on this rank."""
    device, ranks = choose_device(config.run.device), Ranks()
    check_ranks(config.train.batch_size, ranks.size, method=config.head.method)
    autocast = build_precision(config, device, warn=warn)
    source = build_source(config, warn=warn)
    check_trainable(source)
    check_batch_size(config.train.batch_size, source)
    if text := single_images_warning(source):
        warn(text)
    method = build_method_for(config, source, device=device, autocast=autocast)
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
        ranks=ranks,
    )


def build_method_for(
    config: Config, source: GroupedSource, *, device: torch.device, autocast: torch.dtype | None
) -> Classification | PoolTraining:
    """The method over the identities of `source`."""
    return build_method(
        config,
        source.num_identities,
        device=device,
        autocast=autocast,
        counts=images_of_each(source) if config.head.sampler == "balanced" else None,
        identities_of_heads=identities_of_heads(config, source),
    )


def build_preparation(
    config: Config, loader: Loader | DualLoader[StepPlan], method: Classification | PoolTraining
) -> Preparation | None:
    """What a new run begins with, before its first step; None for nothing."""
    if not config.pool.prefill:
        return None
    if not isinstance(method, PoolTraining) or not isinstance(loader, DualLoader):
        return None  # nothing else has a pool
    num_slots = method.f2c.pool.num_slots
    if num_slots < 2:  # batch norm needs company
        raise ConfigError("pool.prefill needs at least 2 slots; raise pool.slots or pool.ratio")
    return Preparation("filling the pool", num_slots, partial(loader.prefill, num_slots))


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
        compare_every=config.train.compare_every,
    )


def build_schedule(config: Config, steps_per_epoch: float) -> Schedule:
    """The learning-rate schedule; epochs become whole steps, rounded up."""
    chosen = config.schedule
    steps = chosen.steps or math.ceil((chosen.epochs or 0.0) * steps_per_epoch - 1e-6)
    warmup = chosen.warmup_steps or round(chosen.warmup_epochs * steps_per_epoch)
    unit = 1.0 if chosen.steps else steps_per_epoch
    return Schedule(
        num_steps=max(1, steps),
        warmup_steps=warmup,
        decay=chosen.decay,
        power=chosen.power,
        final_fraction=chosen.final_fraction,
        milestones=tuple(round(each * unit) for each in chosen.milestones),
        gamma=chosen.gamma,
    )

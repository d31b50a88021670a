"""Config -> objects: with build_model.py the only place that knows both.

Each function builds one thing: here data, plan and evaluation, there what learns.
Building does no training and writes nothing. The rooms below take plain arguments, so everything
here can be built by hand in a user's own loop just as well.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import ConfigError, DataError, ManyfaceError
from manyface.base.random import stream_seed
from manyface.base.threads import usable_cores
from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.config.running import DataConfig, SetConfig
from manyface.data import (
    Augmentation,
    BinRecords,
    BlockSampler,
    DecodedImages,
    DualLoader,
    EpochSampler,
    GroupedSource,
    ImageSource,
    Loader,
    MakeSampler,
    Mixture,
    MixtureSampler,
    NoisyLabels,
    Records,
    Shares,
    find_bin,
    find_text,
    first_places,
    open_records,
    read_bin,
    read_people,
    select_kept,
    select_records,
)
from manyface.data.loader import check_trainable
from manyface.data.synthetic import SyntheticFaces
from manyface.evaluate import (
    PairEvaluator,
    PairSet,
    bin_pairs,
    identity_overlap,
    lfw_pairs,
    overlap_warning,
    synthetic_pairs,
)
from manyface.heads.pool_plan import StepPlan
from manyface.parallel import Ranks, ranks_here
from manyface.train.build_model import Warn, build_method, build_precision
from manyface.train.checks import (
    check_batch_size,
    check_ranks,
    shared_names_warning,
    single_images_warning,
)
from manyface.train.devices import choose_device
from manyface.train.loop import Plan
from manyface.train.method import Classification, PoolTraining
from manyface.train.prepare import Preparation
from manyface.train.schedule import Schedule

SYNTHETIC = "synthetic"


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
        counts=_images_of_each(source) if config.head.sampler == "balanced" else None,
        identities_of_heads=identities_of_heads(config, source),
    )


def identities_of_heads(config: Config, source: GroupedSource) -> list[int] | None:
    """Identities of each head where sets have their own: of the common one, if any, first."""
    sets = sets_in_order(config)
    if not isinstance(source, Mixture) or all(each.head == "common" for each in sets):
        return None
    found = [each.num_identities for each in source.sources]
    common = sum(each.head == "common" for each in sets)
    return [sum(found[:common]), *found[common:]] if common else found


# --- data -----------------------------------------------------------------------------------------


def build_source(config: Config, *, warn: Warn) -> GroupedSource:
    """The images to train on, under the labels to train on."""
    right, noise = _rightly_labelled(config, warn=warn), config.data.noise
    if not noise.is_any:
        return right
    seed = stream_seed(config.run.seed, "label noise")
    return NoisyLabels(right, split=noise.split, parts=noise.parts, flip=noise.flip, seed=seed)


def _rightly_labelled(config: Config, *, warn: Warn) -> GroupedSource:
    data = config.data
    if data.is_synthetic:
        return _synthetic_faces(
            config,
            first_identity=0,
            num_identities=data.synthetic.num_identities,
            long_tail=data.synthetic.long_tail,
        )
    if not data.sets:
        return _decoded(config, data, key="data", warn=warn)
    sets = sets_in_order(config)
    mixture = Mixture([_decoded(config, each, key="data.sets", warn=warn) for each in sets])
    for each, source in zip(sets, mixture.sources, strict=True):
        if each.head == "own":
            check_trainable(source)
    if text := shared_names_warning(mixture, common=sum(each.head == "common" for each in sets)):
        warn(text)
    return mixture


def sets_in_order(config: Config) -> list[SetConfig]:
    """The sets in the order of their labels: those with the common head first."""
    return sorted(config.data.sets, key=lambda each: each.head != "common")


def _decoded(
    config: Config, chosen: DataConfig | SetConfig, *, key: str, warn: Warn
) -> DecodedImages:
    """The photos of the data, or of one set of them."""
    with _naming(f"{key}.path"):
        records = open_records(chosen.path)
    if chosen.keep is not None:
        with _naming(f"{key}.keep"):
            records = select_kept(records, chosen.keep)
    with _naming(f"{key}.people"):
        people = None if chosen.people is None else read_people(find_text(records, chosen.people))
    if people is not None or chosen.min_images_per_identity > 1:
        records = select_records(records, people=people, min_images=chosen.min_images_per_identity)
    return DecodedImages(
        records,
        image_size=config.data.image_size,
        threads=config.data.threads,
        max_bad_share=config.data.max_bad_share,
        warn=warn,
    )


def _images_of_each(source: GroupedSource) -> npt.NDArray[np.int64]:
    """Number of images of every identity, int64 [N]."""
    return source.images_of(np.arange(source.num_identities))[1]


def loader_workers() -> int:
    """A quarter of the cores makes batches; their number changes the speed, never the content."""
    return max(1, usable_cores() // (4 * ranks_here()))


def build_loader(
    config: Config, source: GroupedSource, method: Classification | PoolTraining | None
) -> Loader | DualLoader[StepPlan]:
    """Shuffled, augmented batches of `source`, of the kind that `method` takes."""
    workers, ranks = loader_workers(), Ranks()
    shared: dict[str, Any] = {
        "rank": ranks.rank,
        "num_ranks": ranks.size,
        "batch_size": config.train.batch_size,
        "seed": config.run.seed,
        "augmentation": Augmentation(**config.augmentation.model_dump()),
        "prefetch": workers + 1,
        "workers": workers,
    }
    shared["order"] = build_order(config, source)
    shared["on_device"] = choose_device(config.run.device).type == "cuda"
    if config.head.method not in WITHOUT_CENTERS:
        return Loader(source, **shared)
    if isinstance(source, Mixture):
        shared["identity_order"] = build_identity_order(config, source)
    planner = method.f2c.planner if isinstance(method, PoolTraining) else None
    return DualLoader(
        source, identity_share=config.pool.identity_share, make_planner=planner, **shared
    )


def build_order(config: Config, source: ImageSource) -> MakeSampler:
    """What makes the sampler of `source`, by `data.shuffle` and the weights of sets."""
    data = config.data
    if isinstance(source, Mixture):
        sizes = [len(each) for each in source.sources]
        orders = [build_order(config, each) for each in source.sources]
        shares = Shares(
            [each.weight or size for each, size in zip(sets_in_order(config), sizes, strict=True)]
        )
        return partial(MixtureSampler, sizes=sizes, shares=shares, orders=orders)
    if data.shuffle == "full":
        return EpochSampler
    return partial(
        BlockSampler,
        block_size=data.block_size,
        window=data.shuffle_window,
        from_storage=source.from_storage,
    )


def build_identity_order(config: Config, source: Mixture) -> MakeSampler:
    """What makes the sampler of identities of dual batches: where sets have weights, these are
    their shares here too."""
    weights = [each.weight for each in sets_in_order(config)]
    sizes = [each.num_identities for each in source.sources]
    shares = Shares([weight or size for weight, size in zip(weights, sizes, strict=True)])
    orders = [EpochSampler] * len(sizes)
    return partial(MixtureSampler, sizes=sizes, shares=shares, orders=orders)


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


def _synthetic_faces(
    config: Config, *, first_identity: int, num_identities: int, long_tail: float = 0.0
) -> SyntheticFaces:
    chosen = config.data.synthetic
    with _naming("data.synthetic", kind=ConfigError):
        return SyntheticFaces(
            num_identities=num_identities,
            images_per_identity=chosen.images_per_identity,
            image_size=config.data.image_size,
            seed=chosen.seed,
            first_identity=first_identity,
            difficulty=chosen.difficulty,
            long_tail=long_tail,
        )


@contextmanager
def _naming(key: str, *, kind: type[ManyfaceError] = DataError) -> Iterator[None]:
    """Data that cannot be used are named by their key; where they are made up, it is to blame."""
    try:
        yield
    except DataError as error:
        raise kind(f"{key}: {error}") from error


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


# --- evaluation -----------------------------------------------------------------------------------


def build_evaluators(
    config: Config, source: ImageSource | None, *, warn: Warn
) -> list[PairEvaluator]:
    """The sets to verify on; people who are in `source` too are warned of."""
    pairs = build_pairs(config, warn=warn)
    if pairs is None:
        return []
    if source is not None and not pairs.names_people:
        warn(f"nobody is named in {pairs.name}: see to it that its people are not trained on")
    elif source is not None:
        names = pairs.identity_names()
        overlap = identity_overlap(source.identity_names, names)
        if text := overlap_warning(overlap, num_test=len(names), name=pairs.name):
            warn(text)
    return [PairEvaluator(pairs, fars=config.evaluation.fars)]


def build_pairs(config: Config, *, warn: Warn) -> PairSet | None:
    """The pairs of `evaluation.pairs`; None if there are none."""
    chosen = config.evaluation
    wanted = chosen.pairs or (SYNTHETIC if config.data.is_synthetic else None)
    if wanted is None:
        return None
    if wanted == SYNTHETIC:
        return _synthetic_pairs(config)
    where, name = Path(chosen.path or config.data.path).expanduser(), Path(wanted).stem
    with _naming("evaluation.pairs"):
        if (path := find_bin(wanted, near=where)) is not None:
            found = read_bin(path)
            images = _images_of_pairs(config, BinRecords(path, found), warn=warn)
            first = first_places(found.images)
            return bin_pairs(images, found.same, folds=chosen.folds, name=name, first=first)
    if chosen.path is None and config.data.path == SYNTHETIC:
        several = "there are several data.sets" if config.data.sets else "data.path is 'synthetic'"
        raise ConfigError(
            f"evaluation.pairs is {wanted!r}, no .bin file that is there, but {several}; "
            "set evaluation.path to the photos of the pairs"
        )
    with _naming("evaluation.path" if chosen.path else "data.path"):
        records = open_records(where)
    images = _images_of_pairs(config, records, warn=warn)
    with _naming("evaluation.pairs"):
        text = find_text(records, wanted)
        return lfw_pairs(images, text, folds=chosen.folds, name=name)


def _images_of_pairs(config: Config, records: Records, *, warn: Warn) -> DecodedImages:
    return DecodedImages(
        records,
        image_size=config.data.image_size,
        threads=config.data.threads,
        max_bad_share=config.data.max_bad_share,
        substitute=False,
        warn=warn,
    )


def _synthetic_pairs(config: Config) -> PairSet:
    """Pairs of people whose numbers follow those of the training people: nobody is in both.

    All have equally many photos, whatever `data.synthetic.long_tail` says of those trained on.
    """
    chosen = config.evaluation
    trained = config.data.synthetic.num_identities if config.data.is_synthetic else 0
    faces = _synthetic_faces(config, first_identity=trained, num_identities=chosen.num_identities)
    seed = stream_seed(config.data.synthetic.seed, "evaluation pairs")
    with _naming("evaluation", kind=ConfigError):
        pairs = synthetic_pairs(faces, num_pairs=chosen.num_pairs, folds=chosen.folds, seed=seed)
    return replace(pairs, name=SYNTHETIC)

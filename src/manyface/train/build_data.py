"""Config -> the images to train on, and the loader that makes batches of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, DataError, ManyfaceError
from manyface.base.random import stream_seed
from manyface.base.threads import usable_cores
from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.config.running import DataConfig, SetConfig
from manyface.data import (
    Augmentation,
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
    find_text,
    open_records,
    read_people,
    select_kept,
    select_records,
)
from manyface.data.loader import check_trainable
from manyface.data.synthetic import SyntheticFaces
from manyface.heads.pool_plan import StepPlan
from manyface.parallel import Ranks, ranks_here
from manyface.train.build_model import Warn
from manyface.train.checks import shared_names_warning
from manyface.train.devices import choose_device
from manyface.train.method import Classification, PoolTraining


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
        return synthetic_faces(
            config,
            first_identity=0,
            num_identities=data.synthetic.num_identities,
            long_tail=data.synthetic.long_tail,
        )
    if not data.sets:
        return _photos_of(config, data, key="data", warn=warn)
    sets = sets_in_order(config)
    mixture = Mixture([_photos_of(config, each, key="data.sets", warn=warn) for each in sets])
    for each, source in zip(sets, mixture.sources, strict=True):
        if each.head == "own":
            check_trainable(source)
    if text := shared_names_warning(mixture, common=sum(each.head == "common" for each in sets)):
        warn(text)
    return mixture


def sets_in_order(config: Config) -> list[SetConfig]:
    """The sets in the order of their labels: those with the common head first."""
    return sorted(config.data.sets, key=lambda each: each.head != "common")


def _photos_of(
    config: Config, chosen: DataConfig | SetConfig, *, key: str, warn: Warn
) -> DecodedImages:
    """The photos of the data, or of one set of them."""
    with naming(f"{key}.path"):
        records = open_records(chosen.path)
    if chosen.keep is not None:
        with naming(f"{key}.keep"):
            records = select_kept(records, chosen.keep)
    with naming(f"{key}.people"):
        people = None if chosen.people is None else read_people(find_text(records, chosen.people))
    if people is not None or chosen.min_images_per_identity > 1:
        records = select_records(records, people=people, min_images=chosen.min_images_per_identity)
    return decoded(config, records, warn=warn)


def decoded(
    config: Config, records: Records, *, warn: Warn, substitute: bool = True
) -> DecodedImages:
    """`records` as images of the size of the run; `substitute` puts others for broken ones."""
    return DecodedImages(
        records,
        image_size=config.data.image_size,
        threads=config.data.threads,
        max_bad_share=config.data.max_bad_share,
        substitute=substitute,
        warn=warn,
    )


def images_of_each(source: GroupedSource) -> npt.NDArray[np.int64]:
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
    if config.head.method not in WITHOUT_CENTERS and config.data.batches == "images":
        return Loader(source, **shared)
    if isinstance(source, Mixture):
        shared["identity_order"] = build_identity_order(config, source)
    planner = method.f2c.planner if isinstance(method, PoolTraining) else None
    return DualLoader(  # pool.identity_share is 1 where there is no pool
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


def synthetic_faces(
    config: Config, *, first_identity: int, num_identities: int, long_tail: float = 0.0
) -> SyntheticFaces:
    chosen = config.data.synthetic
    with naming("data.synthetic", kind=ConfigError):
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
def naming(key: str, *, kind: type[ManyfaceError] = DataError) -> Iterator[None]:
    """Data that cannot be used are named by their key; where they are made up, it is to blame."""
    try:
        yield
    except DataError as error:
        raise kind(f"{key}: {error}") from error


def identities_of_heads(config: Config, source: GroupedSource) -> list[int] | None:
    """Identities of each head where sets have their own: of the common one, if any, first."""
    sets = sets_in_order(config)
    if not isinstance(source, Mixture) or all(each.head == "common" for each in sets):
        return None
    found = [each.num_identities for each in source.sources]
    common = sum(each.head == "common" for each in sets)
    return [sum(found[:common]), *found[common:]] if common else found

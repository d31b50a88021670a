"""Config -> the pairs to verify on, and what judges a net by them."""

from dataclasses import replace
from pathlib import Path

from manyface.base.errors import ConfigError
from manyface.base.random import stream_seed
from manyface.config import Config
from manyface.data import (
    BinRecords,
    ImageSource,
    find_bin,
    find_text,
    first_places,
    open_records,
    read_bin,
)
from manyface.evaluate import (
    PairEvaluator,
    PairSet,
    bin_pairs,
    identity_overlap,
    lfw_pairs,
    overlap_warning,
    synthetic_pairs,
)
from manyface.train.build_data import decoded, naming, synthetic_faces
from manyface.train.build_model import Warn

SYNTHETIC = "synthetic"


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
    where = Path(chosen.path or config.data.path).expanduser()
    with naming("evaluation.pairs"):
        found = find_bin(wanted, near=where)
    if found is not None:
        return _pairs_of_bin(config, found, name=Path(wanted).stem, warn=warn)
    return _pairs_of_list(config, wanted, where, warn=warn)


def _pairs_of_bin(config: Config, path: Path, *, name: str, warn: Warn) -> PairSet:
    with naming("evaluation.pairs"):
        content = read_bin(path)
        images = decoded(config, BinRecords(path, content), substitute=False, warn=warn)
        first = first_places(content.images)
        folds = config.evaluation.folds
        return bin_pairs(images, content.same, folds=folds, name=name, first=first)


def _pairs_of_list(config: Config, wanted: str, where: Path, *, warn: Warn) -> PairSet:
    """The pairs of a list such as LFW's pairs.txt, of the photos in `where`."""
    chosen, data = config.evaluation, config.data
    if chosen.path is None and data.path == SYNTHETIC:
        several = "there are several data.sets" if data.sets else "data.path is 'synthetic'"
        raise ConfigError(
            f"evaluation.pairs is {wanted!r}, no .bin file that is there, but {several}; "
            "set evaluation.path to the photos of the pairs"
        )
    with naming("evaluation.path" if chosen.path else "data.path"):
        records = open_records(where)
    images = decoded(config, records, substitute=False, warn=warn)
    with naming("evaluation.pairs"):
        text = find_text(records, wanted)
        return lfw_pairs(images, text, folds=chosen.folds, name=Path(wanted).stem)


def _synthetic_pairs(config: Config) -> PairSet:
    """Pairs of people whose numbers follow those of the training people: nobody is in both.

    All have equally many photos, whatever `data.synthetic.long_tail` says of those trained on.
    """
    chosen = config.evaluation
    trained = config.data.synthetic.num_identities if config.data.is_synthetic else 0
    faces = synthetic_faces(config, first_identity=trained, num_identities=chosen.num_identities)
    seed = stream_seed(config.data.synthetic.seed, "evaluation pairs")
    with naming("evaluation", kind=ConfigError):
        pairs = synthetic_pairs(faces, num_pairs=chosen.num_pairs, folds=chosen.folds, seed=seed)
    return replace(pairs, name=SYNTHETIC)

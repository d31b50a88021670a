"""The photos that studies are given by --data: looked at before the first run, and known again.

Equal recipes on other photos have the same digest, so results keep a fingerprint of the photos that
they are of, and those of others are refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from manyface.base.errors import ConfigError, DataError, ManyfaceError
from manyface.config import Config
from manyface.studies.cells import Cell, Changes, Scale, Study, Table
from manyface.studies.jobs import Job, jobs_of, tables_here
from manyface.studies.kept import Count, Kept
from manyface.train.build_data import build_source
from manyface.train.build_pairs import build_pairs
from manyface.train.state import identities_fingerprint


class Fingerprint(Kept):
    """Of photos: how many people and images, and a hash of names and images of each in order."""

    people: Count
    images: Count
    names: str

    def __str__(self) -> str:
        return f"{self.people:,} people with {self.images:,} images (names {self.names})"


@dataclass(frozen=True)
class Photos:
    """The photos of a recipe of the scale, as they are now."""

    recipe: str
    found: Fingerprint


PhotosOf = Mapping[Changes, Photos]  # by what a job says of where its photos are


def has_photos(study: Study, scale: Scale) -> bool:
    """Whether some table of it is of photos."""
    return any(table.recipe in scale.photos for table in study.tables)


def check_data(studies: Sequence[Study], scale: Scale, data: Path | None) -> str:
    """What to say of sets of photos that are missing, if any is.

    Raises:
        ConfigError: `data` is not there, or not asked for; or there is nothing else to train on.
    """
    if data is not None and not data.exists():
        raise ConfigError(f"--data {data}: there is no such file or folder")
    if data is not None and not scale.photos:
        raise ConfigError(
            f"--data {data}: the scale {scale.name} has no photos to train on; leave it out, or "
            "choose another --scale"
        )
    here, gone = _sets(studies, scale, data)
    if studies and not any(tables_here(study, scale, data=data) for study in studies):
        given = (
            "give --data, the" if data is None else f"--data {data} has none of them: expected a"
        )
        raise ConfigError(
            f"the scale {scale.name} trains on photos; {given} folder with {', '.join(gone)}"
        )
    if data is None or not gone:
        return ""
    return (
        f"photos in {data}: {', '.join(here)}; missing, so that their tables are left out: "
        f"{', '.join(gone)}"
    )


def _sets(studies: Iterable[Study], scale: Scale, data: Path | None) -> tuple[list[str], list[str]]:
    """Recipes of photos that the studies have, those whose photos are there, and the others."""
    named = [table.recipe for study in studies for table in study.tables]
    wanted = [recipe for recipe in dict.fromkeys(named) if recipe in scale.photos]
    here = {r for r in wanted if data is not None and (data / scale.photos[r]).exists()}
    return [r for r in wanted if r in here], [r for r in wanted if r not in here]


def look_at(tables: Iterable[Table], scale: Scale, data: Path | None) -> PhotosOf:
    """The photos of these tables' recipes: opened with their pairs, one photo of each decoded.

    Raises:
        DataError: they cannot be trained or judged on.
    """
    first = {each.recipe: jobs_of(each, scale, data=data)[0] for each in tables}
    return {job.data: Photos(recipe, _opened(job, recipe)) for recipe, job in first.items()}


def _opened(job: Job, recipe: str) -> Fingerprint:
    config = replace(job, cell=Cell(recipe)).config
    try:
        return _fingerprint(config)
    except ManyfaceError as error:
        beside = [name for name in (config.data.people, config.evaluation.pairs) if name]
        raise DataError(
            f"photos for the tables of {recipe}: {error}; expected photos of people, with "
            f"{' and '.join(beside)} beside them (docs/howto/reproduce.md says how --data looks)"
        ) from error


def _fingerprint(config: Config) -> Fingerprint:
    source = build_source(config, warn=lambda text: None)
    pairs = build_pairs(config, warn=lambda text: None)
    source.load(np.zeros(1, np.int64))
    if pairs is not None:
        pairs.source.load(pairs.left[:1])
    names = f"{identities_fingerprint(source):012x}"
    return Fingerprint(people=source.num_identities, images=len(source), names=names)

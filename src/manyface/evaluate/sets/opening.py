"""The sets that users name, opened: each with its photos, ready to be judged."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.threads import usable_cores
from manyface.data.bin_file import BinRecords, read_bin
from manyface.data.images import DecodedImages
from manyface.data.records import Records, open_records
from manyface.data.records.base import Warn, labels_of, read_text_file
from manyface.data.records.loose import LooseRecords
from manyface.evaluate.pairs import PairSet, bin_pairs, folds_in_order, lfw_pairs
from manyface.evaluate.sets.base import JudgedSet
from manyface.evaluate.sets.everyone import JudgedEveryone
from manyface.evaluate.sets.gallery import FOLDERS, JudgedGallery
from manyface.evaluate.sets.ijb import JudgedIjb
from manyface.evaluate.sets.naming import SetName
from manyface.evaluate.sets.pairs import JudgedPairs
from manyface.evaluate.sets.path_list import read_path_pairs

FOLDS = 10


@dataclass(frozen=True)
class SetOptions:
    """How sets are opened.

    Attributes:
        image_size: S that the net takes.
        fars: at which TAR is given; None: those that are usual for the kind of set.
        images: where the photos of a list of pairs are; None: beside the list.
        subgroups: a file of person, TAB, subgroup; None.
        device: on which all are compared with all.
        flip: features hold those of the mirror images.
        by_quality: pairs also in parts by the length of their embeddings.
        warn: gets a line where something is odd.
    """

    image_size: int
    warn: Warn
    fars: Sequence[float] | None = None
    images: Path | None = None
    subgroups: Path | None = None
    device: str = "cpu"
    flip: bool = True
    by_quality: bool = False


def open_set(name: SetName, options: SetOptions) -> JudgedSet:
    """The set `name`.

    Raises:
        DataError: it cannot be read, or not be judged by.
    """
    return _OPENERS[name.kind](name, options)


def _bin(name: SetName, options: SetOptions) -> JudgedSet:
    found = read_bin(name.path)
    source = _source(BinRecords(name.path, found), options)
    folds = min(FOLDS, len(found.same))
    return _judged(bin_pairs(source, found.same, folds=folds, name=name.name), options)


def _pairs(name: SetName, options: SetOptions) -> JudgedSet:
    text = read_text_file(name.path)
    folder = options.images or name.path.parent
    if _is_lfw_list(text):
        records = open_records(folder, warn=options.warn)
        pairs = lfw_pairs(_source(records, options), text, folds=FOLDS, name=name.name)
        return _judged(pairs, options, _groups(records, options.subgroups))
    listed = read_path_pairs(text, name.path)
    files = [folder / path for path in listed.paths]
    if missing := [file for file in files if not file.is_file()]:
        raise DataError(
            f"{name.path}: {len(missing)} of {len(files)} images are not there, the first is "
            f"{missing[0]}; --images DIR says where they are"
        )
    source = _source(LooseRecords(folder, files), options)
    fold = folds_in_order(listed.same, FOLDS) if listed.fold is None else listed.fold
    pairs = PairSet(name.name, source, listed.left, listed.right, listed.same, fold, False)
    return _judged(pairs, options)


def _is_lfw_list(text: str) -> bool:
    """Such a list begins with one or two numbers."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return all(word.isdecimal() for word in first.split())


def _everyone(name: SetName, options: SetOptions) -> JudgedSet:
    records = open_records(name.path, warn=options.warn)
    return JudgedEveryone(
        _source(records, options),
        name=name.name,
        fars=options.fars,
        groups=_groups(records, options.subgroups),
        device=options.device,
    )


def _gallery(name: SetName, options: SetOptions) -> JudgedSet:
    found = {part: name.path / part for part in FOLDERS}
    if missing := [part for part in ("probe", "gallery") if not found[part].exists()]:
        raise DataError(
            f"{name.path} has no {' and no '.join(missing)}: expected {name.path}/gallery and "
            f"{name.path}/probe, sets of people, and perhaps {name.path}/distractors"
        )
    sources = {
        part: _source(open_records(path, warn=options.warn), options)
        for part, path in found.items()
        if path.exists()
    }
    return JudgedGallery(
        sources["probe"],
        sources["gallery"],
        sources.get("distractors"),
        name=name.name,
        device=options.device,
    )


def _ijb(name: SetName, options: SetOptions) -> JudgedSet:
    judged = JudgedIjb(name.path, image_size=options.image_size, flip=options.flip)
    if judged.name != name.kind:
        raise DataError(f"{name.path} holds {judged.name}, and {name.kind} was said")
    return judged


def _groups(records: Records, path: Path | None) -> npt.NDArray[np.str_] | None:
    """The subgroup of each record, "" of those whom the file does not name; None without one."""
    if path is None:
        return None
    group_of: dict[str, str] = {}
    text = unicodedata.normalize("NFC", read_text_file(path))  # as sources spell names
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            person, _, group = (part.strip() for part in line.partition("\t"))
            if not (person and group):
                raise DataError(
                    f"{path}, line {number}: expected person, TAB, subgroup; got {line[:80]!r}"
                )
            if group_of.setdefault(person, group) != group:
                raise DataError(f"{path}, line {number}: {person!r} is in two subgroups")
    if unknown := group_of.keys() - set(records.identity_names):
        raise DataError(
            f"{path}: {len(unknown)} of {len(group_of)} people are not in {records.path}, as "
            f"{min(unknown)!r}; is the list for this data?"
        )
    of_people = np.array([group_of.get(name, "") for name in records.identity_names])
    return of_people[labels_of(records.first_images, np.arange(len(records)))]


def _judged(
    pairs: PairSet, options: SetOptions, groups: npt.NDArray[np.str_] | None = None
) -> JudgedSet:
    fars = options.fars or (1e-1, 1e-2, 1e-3, 1e-4)
    return JudgedPairs(pairs, fars=fars, by_quality=options.by_quality, groups=groups)


def _source(records: Records, options: SetOptions) -> DecodedImages:
    return DecodedImages(
        records,
        image_size=options.image_size,
        threads=usable_cores(),
        substitute=False,
        cache=0,
        warn=options.warn,
    )


_OPENERS: dict[str, Callable[[SetName, SetOptions], JudgedSet]] = {
    "bin": _bin,
    "pairs": _pairs,
    "all": _everyone,
    "gallery": _gallery,
    "ijbb": _ijb,
    "ijbc": _ijb,
}

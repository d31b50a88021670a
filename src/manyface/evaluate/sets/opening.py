"""The sets that users name, opened: each with its photos, ready to be judged."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, DataError
from manyface.base.threads import usable_cores
from manyface.data.bin_file import BinRecords, first_places, read_bin
from manyface.data.images import DecodedImages
from manyface.data.lists import read_pairs
from manyface.data.records import Records, open_records
from manyface.data.records.base import Warn, labels_of, read_text_file
from manyface.data.records.loose import LooseRecords
from manyface.evaluate.ijb_verify import FARS
from manyface.evaluate.metrics import BoolArray
from manyface.evaluate.pairs import PairSet, bin_pairs, folds_in_order, lfw_pairs
from manyface.evaluate.sets.base import JudgedSet
from manyface.evaluate.sets.everyone import JudgedEveryone
from manyface.evaluate.sets.gallery import FOLDERS, JudgedDistractors, JudgedGallery
from manyface.evaluate.sets.ijb import JudgedIjb
from manyface.evaluate.sets.naming import SetName
from manyface.evaluate.sets.pairs import JudgedPairs
from manyface.evaluate.sets.path_list import read_path_pairs
from manyface.evaluate.tinyface import read_tinyface

FOLDS = 10

# Which kinds of sets an option says something about.
_KINDS_OF = {
    "fars": ("bin", "pairs", "all", "megaface", "ijbb", "ijbc"),
    "images": ("pairs",),
    "subgroups": ("pairs", "all"),
    "by_quality": ("bin", "pairs"),
}


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


def check_used(names: Sequence[SetName], options: SetOptions) -> None:
    """ConfigError if an option is given that says nothing about any of the sets."""
    for option, kinds in _KINDS_OF.items():
        if getattr(options, option) and not any(name.kind in kinds for name in names):
            raise ConfigError(
                f"--{option.replace('_', '-')} is for sets of the kinds {', '.join(kinds)}; none "
                f"is named ({', '.join(name.name for name in names)}): leave it out"
            )


def open_set(name: SetName, options: SetOptions) -> JudgedSet:
    """The set `name`.

    Raises:
        DataError: it cannot be read, or not be judged by.
    """
    return _OPENERS[name.kind](name, options)


def _bin(name: SetName, options: SetOptions) -> JudgedSet:
    found = read_bin(name.path)
    source = _source(BinRecords(name.path, found), options)
    pairs = bin_pairs(
        source,
        found.same,
        folds=min(FOLDS, len(found.same)),
        name=name.name,
        first=first_places(found.images),
    )
    return _judged(pairs, options)


def _pairs(name: SetName, options: SetOptions) -> JudgedSet:
    text = read_text_file(name.path)
    folder = options.images or name.path.parent
    if _is_lfw_list(text):
        records = open_records(folder, warn=options.warn)
        folds = _folds_for(read_pairs(text).same)  # of a list that has none
        pairs = lfw_pairs(_source(records, options), text, folds=folds, name=name.name)
        return _judged(pairs, options, _groups(records, options.subgroups, options.warn))
    if options.subgroups is not None:
        raise DataError(
            f"{name.path} names images, not people, so --subgroups cannot tell who is in which: "
            "give a list as LFW's, or leave it out"
        )
    listed = read_path_pairs(text, name.path)
    files = [folder / path for path in listed.paths]
    if missing := [file for file in files if not file.is_file()]:
        raise DataError(
            f"{name.path}: {len(missing)} of {len(files)} images are not there, the first is "
            f"{missing[0]}; --images DIR says where they are"
        )
    source = _source(LooseRecords(folder, files), options)
    fold = listed.fold
    if fold is None:
        fold = folds_in_order(listed.same, _folds_for(listed.same))
    pairs = PairSet(name.name, source, listed.left, listed.right, listed.same, fold, False)
    return _judged(pairs, options)


def _folds_for(same: BoolArray) -> int:
    """The usual number, fewer where there are fewer pairs of a kind; at least two."""
    num_same = int(np.count_nonzero(same))
    return max(2, min(FOLDS, num_same, len(same) - num_same))


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
        groups=_groups(records, options.subgroups, options.warn),
        device=options.device,
    )


def _gallery(name: SetName, options: SetOptions) -> JudgedSet:
    sources = _folders(name, ("probe", "gallery"), options)
    return JudgedGallery(
        sources["probe"],
        sources["gallery"],
        sources.get("distractors"),
        name=name.name,
        device=options.device,
    )


def _megaface(name: SetName, options: SetOptions) -> JudgedSet:
    sources = _folders(name, ("probe", "distractors"), options)
    return JudgedDistractors(
        sources["probe"],
        sources["distractors"],
        name=name.name,
        fars=options.fars or (1e-5, 1e-6),
        device=options.device,
    )


def _folders(name: SetName, needed: Sequence[str], options: SetOptions) -> dict[str, DecodedImages]:
    """Those of FOLDERS that are there, opened."""
    found = {part: name.path / part for part in FOLDERS}
    if missing := [part for part in needed if not found[part].exists()]:
        raise DataError(
            f"{name.path} has no {' and no '.join(missing)}: expected {name.path}/{needed[0]} and "
            f"{name.path}/{needed[1]}, sets of people"
        )
    return {
        part: _source(open_records(path, warn=options.warn), options)
        for part, path in found.items()
        if path.exists()
    }


def _tinyface(name: SetName, options: SetOptions) -> JudgedSet:
    found = read_tinyface(name.path)
    probes, gallery = (
        _source(LooseRecords(name.path, files, people=[str(each) for each in labels]), options)
        for files, labels in (
            (found.probes, found.probe_labels.tolist()),
            (found.gallery, found.gallery_labels.tolist()),
        )
    )
    return JudgedGallery(
        probes,
        gallery,
        _source(LooseRecords(name.path, found.distractors), options),
        name=name.name,
        device=options.device,
        notes=found.notes,
    )


def _ijb(name: SetName, options: SetOptions) -> JudgedSet:
    judged = JudgedIjb(
        name.path, image_size=options.image_size, flip=options.flip, fars=options.fars or FARS
    )
    if judged.name != name.kind:
        raise DataError(f"{name.path} holds {judged.name}, and {name.kind} was said")
    return judged


def _groups(records: Records, path: Path | None, warn: Warn) -> npt.NDArray[np.str_] | None:
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
        text = (
            f"{path}: {len(unknown)} of {len(group_of)} people are not in {records.path}, as "
            f"{min(unknown)!r}; is the list for this data?"
        )
        if len(unknown) == len(group_of):
            raise DataError(text)
        warn(text)  # one list may be for several sets
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
    "megaface": _megaface,
    "tinyface": _tinyface,
    "ijbb": _ijb,
    "ijbc": _ijb,
}

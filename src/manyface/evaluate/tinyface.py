"""TinyFace as it is handed on: who is in which photo, by its lists or the names of its files.

    Testing_Set/Probe/<person>_<k>.jpg
    Testing_Set/Gallery_Match/<person>_<k>.jpg
    Testing_Set/Gallery_Distractor/<anything>
    Testing_Set/probe_img_ID_pairs.mat           probe_set: names of files, probe_ids: persons
    Testing_Set/gallery_match_img_ID_pairs.mat   gallery_set, gallery_ids

The folder of the set, `Testing_Set` itself, or a folder of aligned photos of the same three names
will do, and a gallery of one's own in this shape. Where the lists are there, beside the photos or
in `lists`, and scipy is installed, they say which photos count and whose they are; aligned photos
may have another suffix. Else the photos that are there count, and their names say it: of the
published set that is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError, one_line, to_install
from manyface.data.records.naming import is_hidden, is_image_name
from manyface.evaluate.metrics import IntArray

_PROBE, _MATCH, _DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"
# Folder of the photos -> its list, and what that calls names and persons.
_LISTS = {
    _PROBE: ("probe_img_ID_pairs.mat", "probe_set", "probe_ids"),
    _MATCH: ("gallery_match_img_ID_pairs.mat", "gallery_set", "gallery_ids"),
}
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class TinyFace:
    """Files of each part, sorted by person, and the persons of those that have one (int64).

    `notes` say what has not been read.
    """

    probes: list[Path]
    probe_labels: IntArray
    gallery: list[Path]
    gallery_labels: IntArray
    distractors: list[Path]
    notes: list[str] = field(default_factory=list)


def read_tinyface(folder: str | Path, *, lists: str | Path | None = None) -> TinyFace:
    """The photos of the set in `folder`.

    Args:
        lists: where the .mat files are, if not beside the photos.

    Raises:
        DataError: a part is missing or empty, a list is damaged or names a photo that is not there,
            or, without lists, a name does not begin with a person's number.
    """
    place = _find(Path(folder).expanduser())
    beside = place if lists is None else Path(lists).expanduser()
    found = {part: _images(place / part) for part in (_PROBE, _MATCH, _DISTRACTOR)}
    notes: list[str] = []
    probes, probe_labels = _photos(found[_PROBE], beside, notes, *_LISTS[_PROBE])
    gallery, gallery_labels = _photos(found[_MATCH], beside, notes, *_LISTS[_MATCH])
    return TinyFace(probes, probe_labels, gallery, gallery_labels, found[_DISTRACTOR], notes)


def _find(folder: Path) -> Path:
    for place in (folder, folder / "Testing_Set", folder / "tinyface/Testing_Set"):
        if (place / _PROBE).is_dir():
            return place
    raise DataError(f"no TinyFace set in {folder}: expected Testing_Set/{_PROBE}")


def _photos(
    found: list[Path], lists: Path, notes: list[str], name: str, names: str, persons: str
) -> tuple[list[Path], IntArray]:
    """The photos that count and whose they are, sorted by person."""
    listed = _read_list(lists / name, names, persons) if (lists / name).is_file() else None
    if listed is None:
        if (lists / name).is_file():
            notes.append(
                f"{name} was not read, the names of the files say who is who: to read it, "
                + to_install("tinyface")
            )
        labels = np.array([_person(path) for path in found], np.int64)
    else:
        found, labels = _listed_photos(found, *listed, where=lists / name)
    order = np.argsort(labels, kind="stable")
    return [found[place] for place in order.tolist()], labels[order]


def _listed_photos(
    found: Sequence[Path], names: Sequence[str], labels: IntArray, *, where: Path
) -> tuple[list[Path], IntArray]:
    by_stem = {path.stem: path for path in found}
    missing = [name for name in names if Path(name).stem not in by_stem]
    if missing:
        raise DataError(
            f"{where} lists {len(names)} photos, {len(missing)} of which are not in "
            f"{found[0].parent}, as {missing[0]}: a score over fewer would be another score"
        )
    return [by_stem[Path(name).stem] for name in names], labels


def _read_list(path: Path, names: str, persons: str) -> tuple[list[str], IntArray] | None:
    """Names of files and persons of a .mat list; None without scipy."""
    try:
        from scipy.io import loadmat
    except ImportError:
        return None
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path} has {path.stat().st_size} bytes; expected a list of some thousand")
    try:
        content = loadmat(path, variable_names=[names, persons])
        listed = [str(np.atleast_1d(each).item()) for each in content[names].ravel()]
        labels = content[persons].ravel().astype(np.int64)
    except Exception as error:  # its reader raises whatever a damaged file leads it to
        raise DataError(
            f"{path} is no list of TinyFace, expected {names} and {persons} in a .mat: "
            f"{one_line(error)}"
        ) from None
    if not len(listed) or len(listed) != len(labels):
        raise DataError(f"{path}: {len(listed)} photos and {len(labels)} persons; expected as many")
    return listed, labels


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; expected {_PROBE}, {_MATCH} and {_DISTRACTOR}")
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if is_image_name(path.name) and not is_hidden(path.name) and path.is_file()
    ]
    if not found:
        raise DataError(f"{folder} holds no images")
    return found


def _person(path: Path) -> int:
    person = path.stem.split("_")[0]
    if not person.isdecimal():
        raise DataError(f"{path}: expected a name that begins with a person's number and _")
    return int(person)

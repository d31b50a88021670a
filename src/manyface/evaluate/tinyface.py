"""TinyFace as it is handed on: who is in which photo, from the names of the files.

    Testing_Set/Probe/<person>_<k>.jpg
    Testing_Set/Gallery_Match/<person>_<k>.jpg
    Testing_Set/Gallery_Distractor/<anything>

The folder of the set, `Testing_Set` itself, or a folder of aligned photos of the same three names
will do. The lists in its .mat files name the same photos. A gallery of one's own in this shape will
do as well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.naming import is_hidden, is_image_name
from manyface.evaluate.metrics import IntArray

RANKS = (1, 5, 20)
_PROBE, _MATCH, _DISTRACTOR = "Probe", "Gallery_Match", "Gallery_Distractor"


@dataclass(frozen=True)
class TinyFace:
    """Files of each part, sorted, and the persons of those that have one (int64)."""

    probes: list[Path]
    probe_labels: IntArray
    gallery: list[Path]
    gallery_labels: IntArray
    distractors: list[Path]


def read_tinyface(folder: str | Path) -> TinyFace:
    """The photos of the set in `folder`.

    Raises:
        DataError: a part is missing or empty, or a name does not begin with a person's number.
    """
    folder = Path(folder).expanduser()
    for place in (folder, folder / "Testing_Set", folder / "tinyface/Testing_Set"):
        if (place / _PROBE).is_dir():
            probes, gallery = _images(place / _PROBE), _images(place / _MATCH)
            return TinyFace(
                probes, _labels(probes), gallery, _labels(gallery), _images(place / _DISTRACTOR)
            )
    raise DataError(f"no TinyFace set in {folder}: expected Testing_Set/{_PROBE}")


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


def _labels(paths: list[Path]) -> IntArray:
    persons = [path.stem.split("_")[0] for path in paths]
    for path, person in zip(paths, persons, strict=True):
        if not person.isdecimal():
            raise DataError(f"{path}: expected a name that begins with a person's number and _")
    return np.array(persons, dtype=np.int64)

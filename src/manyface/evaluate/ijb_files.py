"""The files of IJB-B and IJB-C as insightface hands them on (`meta/`), read without pandas.

    <set>_face_tid_mid.txt          photo, template, media: one line for each face
    <set>_name_5pts_score.txt       photo, x y of 5 points, detector score: line i is face i
    <set>_template_pair_label.txt   template, template, 1 (one person) or 0: 1:1
    <set>_1N_gallery_G1.csv, _G2    template, subject, ...: 1:N, a head line first (S1, S2 in IJB-B)
    <set>_1N_probe_mixed.csv        the same

<set> is ijbb or ijbc. The list of pairs has 15.7 million lines in IJB-C: numpy reads the numbers of
the whole file in C, and only a file that turns out to be damaged is read line by line, to name the
line. Arrays of it take 9 bytes a pair.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError

Int32Array = npt.NDArray[np.int32]

# Faces, templates and pairs of the sets as they were published.
SIZES = {"ijbb": (227_630, 12_115, 8_010_270), "ijbc": (469_375, 23_124, 15_658_489)}
GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
_LINES_AT_A_TIME = 1 << 16
_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Faces:
    """Attributes:
    names: [N] of the photos, below `loose_crop/`.
    templates, media: int32 [N].
    points: float32 [N, 5, 2], pixels of the photo.
    detector_scores: float32 [N].
    """

    names: list[str]
    templates: Int32Array
    media: Int32Array
    points: npt.NDArray[np.float32]
    detector_scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TemplatePairs:
    """Attributes:
    left, right: int32 [P], templates.
    same: bool [P].
    """

    left: Int32Array
    right: Int32Array
    same: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.same)


@dataclass(frozen=True)
class Subjects:
    """Templates and whose they are, each template once: int32 [n]."""

    templates: Int32Array
    subjects: Int32Array


def find_meta(folder: str | Path) -> tuple[Path, str]:
    """The folder with the files and which set it is: `folder` itself or `meta` in it.

    Raises:
        DataError: there is no such list, or of both sets.
    """
    folder = Path(folder).expanduser()
    for place in (folder, folder / "meta"):
        found = [name for name in SIZES if (place / f"{name}_face_tid_mid.txt").is_file()]
        if len(found) == 1:
            return place, found[0]
        if found:
            raise DataError(f"{place} holds {' and '.join(found)}; give a folder with one of them")
    raise DataError(
        f"no IJB set in {folder}: expected meta/ijbb_face_tid_mid.txt or meta/ijbc_face_tid_mid.txt"
    )


def read_faces(folder: str | Path) -> Faces:
    """The faces of the set in `folder`, from both lists.

    Raises:
        DataError: a list is missing or damaged, or they do not name the same photos.
    """
    place, name = find_meta(folder)
    listed = place / f"{name}_face_tid_mid.txt"
    names, numbers = _read_named(listed, 2, np.int32)
    found = place / f"{name}_name_5pts_score.txt"
    others, values = _read_named(found, 11, np.float32)
    if len(names) != len(others):
        raise DataError(
            f"{listed} names {len(names)} faces, {found.name} {len(others)}: one of them is "
            "incomplete; fetch the meta files again"
        )
    for line, (one, other) in enumerate(zip(names, others, strict=True), start=1):
        if one != other:
            raise DataError(f"line {line}: {listed} names {one!r}, {found.name} names {other!r}")
    if not np.isfinite(values).all():
        line = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0]) + 1
        raise DataError(f"{found}, line {line}: a landmark or score is no finite number")
    points = np.ascontiguousarray(values[:, :10]).reshape(-1, 5, 2)
    templates, media = (np.ascontiguousarray(column) for column in numbers.T)
    return Faces(names, templates, media, points, np.ascontiguousarray(values[:, 10]))


def read_template_pairs(folder: str | Path) -> TemplatePairs:
    """The pairs to verify of the set in `folder`.

    Raises:
        DataError: the list is missing or damaged.
    """
    place, name = find_meta(folder)
    path = place / f"{name}_template_pair_label.txt"
    rows = _read_whole_numbers(path, 3)
    label = rows[:, 2]
    if ((label != 0) & (label != 1)).any() or (rows < 0).any():
        raise DataError(_first_bad_pair(path))
    return TemplatePairs(rows[:, 0].copy(), rows[:, 1].copy(), label == 1)


def read_galleries(folder: str | Path) -> tuple[list[Subjects], Subjects] | None:
    """Both galleries and the probes of 1:N; None where none of their files is there.

    Raises:
        DataError: some are there and others are not, or one is damaged.
    """
    place, name = find_meta(folder)
    files = [place / f"{name}_1N_gallery_{part}.csv" for part in GALLERIES[name]]
    files.append(place / f"{name}_1N_probe_mixed.csv")
    missing = [path.name for path in files if not path.is_file()]
    if len(missing) == len(files):
        return None
    if missing:
        raise DataError(f"{place}: {', '.join(missing)} missing; 1:N needs both galleries, probes")
    *galleries, probes = map(read_subjects, files)
    return galleries, probes


def read_subjects(path: Path) -> Subjects:
    """Templates and subjects of a 1:N list: the first two columns, after the head line.

    A template has a line for each of its photos; it is taken once.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines()[1:], start=2):
        fields = line.split(",")[:2]
        if len(fields) < 2 or not all(field.strip().isdecimal() for field in fields):
            raise DataError(f"{path}, line {number}: expected 'template,subject,...', got {line!r}")
        rows.append((int(fields[0]), int(fields[1])))
    if not rows:
        raise DataError(f"{path} lists no template")
    distinct = np.unique(np.array(rows, np.int64), axis=0).astype(np.int32)
    templates, subjects = distinct.T.copy()
    twice = np.flatnonzero(templates[1:] == templates[:-1])
    if len(twice):
        raise DataError(f"{path}: template {templates[twice[0]]} is of two subjects")
    return Subjects(templates, subjects)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path} has {size} bytes; such lists are read up to {_MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", errors="replace")


def _read_named(
    path: Path, columns: int, dtype: type[np.generic]
) -> tuple[list[str], npt.NDArray[Any]]:
    """Lines of a name and `columns` numbers; some tens of thousands are parsed at a time."""
    lines = _text(path).splitlines()
    names: list[str] = []
    parts = [np.empty((0, columns), dtype)]
    for start in range(0, len(lines), _LINES_AT_A_TIME):
        some = lines[start : start + _LINES_AT_A_TIME]
        words = [line.split() for line in some]
        if any(len(row) != columns + 1 for row in words):
            raise DataError(_first_bad_line(path, words, start, columns, dtype))
        names += [row[0] for row in words]
        text = " ".join(
            [line.lstrip()[len(row[0]) :] for line, row in zip(some, words, strict=True)]
        )
        numbers = _numbers(text, dtype)
        if numbers is None or len(numbers) != columns * len(some):
            raise DataError(_first_bad_line(path, words, start, columns, dtype))
        parts.append(numbers.reshape(-1, columns))
    if not names:
        raise DataError(f"{path} is empty")
    return names, np.concatenate(parts)


def _numbers(text: str, dtype: type[np.generic]) -> npt.NDArray[Any] | None:
    """All numbers of a text, None where something in it is none: numpy itself only warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text, dtype=dtype, sep=" ")
        except (DeprecationWarning, ValueError):
            return None


def _first_bad_line(
    path: Path, words: Sequence[list[str]], start: int, columns: int, dtype: type[np.generic]
) -> str:
    for number, row in enumerate(words, start=start + 1):
        numbers = _numbers(" ".join(row[1:]), dtype)
        if numbers is None or len(numbers) != columns or len(row) != columns + 1:
            shown = " ".join(row)[:80]
            return f"{path}, line {number}: expected a name and {columns} numbers, got {shown!r}"
    return f"{path}: expected lines of a name and {columns} numbers"


def _read_whole_numbers(path: Path, columns: int) -> Int32Array:
    """All of a file of whole numbers, int32 [lines, columns]."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns of what is no number
            numbers = np.fromfile(path, dtype=np.int32, sep=" ")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (DeprecationWarning, ValueError):
        raise DataError(_first_bad_pair(path)) from None
    if not len(numbers):
        raise DataError(f"{path} is empty")
    if len(numbers) % columns:
        raise DataError(_first_bad_pair(path))
    return numbers.reshape(-1, columns)


def _first_bad_pair(path: Path) -> str:
    """What is wrong with a list of pairs, found line by line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            whole = all(word.isdigit() and int(word) < 1 << 31 for word in words)
            if len(words) != 3 or not whole or words[2] not in (b"0", b"1"):
                shown = line[:80].decode("utf-8", errors="replace").strip()
                return (
                    f"{path}, line {number}: expected two templates and 0 or 1, got {shown!r}; "
                    "fetch the meta files again"
                )
    return f"{path} is no list of pairs of templates"

"""Files of landmarks: one line for each photo, its name and five points (or 68).

    1.jpg 46.1 53.3 73.9 52.2 60.1 70.0 49.4 80.9 72.4 79.8 0.998     IJB: spaces, a score
    image,lex,ley,rex,rey,nx,ny,mlx,mly,mrx,mry                       a header; comma or TAB
    name,x1,x2,x3,x4,x5,y1,y2,y3,y4,y5                                another order, as it says
    idx,ldmk_0,ldmk_1, ... ldmk_9                                     CVLface: shares of the size

Without a header, and where it does not say x and y, numbers are x1 y1 x2 y2 ... Points are in the
template's order (align.py); where no number is above 1.5, they are shares of width and height.

A photo is known by its folder and file name without the suffix ("lfw/Ann/1.jpg": Ann/1), so
landmarks serve for copies in another format too; a name without a folder is that of a file in any
folder. Lines are read one by one, also from a .gz file; memory is 80 bytes and the name for each.
"""

import gzip
import re
import unicodedata
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from manyface.base.errors import DataError
from manyface.data.align import NUM_POINTS, FindPoints, FloatArray, UInt8Array, five_of_68

_MAX_LINE = 64 << 10
_GZIP = b"\x1f\x8b"
_LARGEST_SHARE = 1.5  # a landmark may lie outside of the photo


@dataclass(frozen=True)
class Landmarks:
    """Landmarks of N photos.

    Attributes:
        points: float64 [N, 5, 2].
        rows: row of each photo, by `photo_key`.
        are_shares: of the photo's width and height, not pixels.
    """

    points: FloatArray
    rows: dict[str, int]
    are_shares: bool

    def __len__(self) -> int:
        return len(self.points)

    def of(self, name: str, *, width: int, height: int) -> FloatArray | None:
        """Those of the photo `name`, [5, 2] in pixels; None if there are none."""
        key = photo_key(name)
        row = self.rows.get(key)
        if row is None:
            row = self.rows.get(key.rpartition("/")[2])
        if row is None:
            return None
        size = np.array((width, height) if self.are_shares else (1, 1), np.float64)
        return np.asarray(self.points[row] * size)


def looked_up(landmarks: Landmarks) -> FindPoints:
    """Finds a photo's landmarks in `landmarks`."""

    def find(name: str, pixels: UInt8Array) -> FloatArray:
        points = landmarks.of(name, width=pixels.shape[1], height=pixels.shape[0])
        if points is None:
            raise DataError("it has no landmarks")
        return points

    return find


def photo_key(name: str) -> str:
    """ "lfw/Ann/1.jpg" -> "Ann/1"."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    return "/".join([*path.parts[-2:-1], path.stem]).lstrip("/")


def read_landmarks(path: str | Path) -> Landmarks:
    """The landmarks in the file `path`.

    Raises:
        DataError: names the line that cannot be meant.
    """
    path = Path(path).expanduser()
    found = array("d")
    rows: dict[str, int] = {}
    layout: _Layout | None = None
    for number, line in _lines(path):
        if layout is None:
            layout = _Layout.of(line, f"{path}, line {number}")
            if layout.is_header:
                continue
        name, five = layout.read(line, f"{path}, line {number}")
        if rows.setdefault(photo_key(name), len(rows)) * 2 * NUM_POINTS != len(found):
            raise DataError(
                f"{path}, line {number}: {name} has had landmarks before (photos are told apart by "
                "folder and file name); keep one line of each"
            )
        found.extend(five)
    if not rows:
        raise DataError(f"{path} has no landmarks; expected lines 'name x1 y1 ... x5 y5'")
    points = np.frombuffer(found, np.float64).reshape(-1, NUM_POINTS, 2)
    return Landmarks(points, rows, are_shares=not (np.abs(points) > _LARGEST_SHARE).any())


@dataclass(frozen=True)
class _Layout:
    """Which fields of a line are what."""

    delimiter: str | None
    is_header: bool
    num_fields: int | None  # None: a score may follow or not
    x: list[int]
    y: list[int]

    @classmethod
    def of(cls, line: str, where: str) -> "_Layout":
        """By the first line of a file."""
        delimiter = next((mark for mark in "\t," if mark in line), None)
        fields = _split(line, delimiter)
        numbers = [k for k, field in enumerate(fields) if k and _is_number(field)]
        if len(numbers) == len(fields) - 1:
            return cls(delimiter, False, None, *_in_turn(list(range(1, len(fields))), where))
        if numbers:
            raise _not_understood(where, f"{line[:80]!r} (a name with spaces needs TABs)")
        axes = [_axis(field) if k else "" for k, field in enumerate(fields)]
        x, y = ([k for k, axis in enumerate(axes) if axis == wanted] for wanted in "xy")
        if not x and not y:
            others = [k for k, field in enumerate(fields) if k and not _is_score(field)]
            x, y = _in_turn(others, where)
        if len(x) != len(y) or len(x) not in (NUM_POINTS, 68):
            raise _not_understood(where, f"a header of {len(x)} x and {len(y)} y")
        return cls(delimiter, True, len(fields), x, y)

    def read(self, line: str, where: str) -> tuple[str, list[float]]:
        """Name and x, y of the five points."""
        fields = _split(line, self.delimiter)
        last = max(self.x[-1], self.y[-1])
        if not (self.num_fields or last + 1) <= len(fields) <= (self.num_fields or last + 2):
            raise _not_understood(where, f"{len(fields)} fields (a name with spaces needs TABs)")
        try:
            pairs = [
                (float(fields[a]), float(fields[b])) for a, b in zip(self.x, self.y, strict=True)
            ]
        except (ValueError, IndexError):
            raise _not_understood(where, repr(line[:80])) from None
        points = five_of_68(pairs) if len(pairs) == 68 else np.array(pairs)
        return fields[0], points.ravel().tolist()


def _in_turn(columns: list[int], where: str) -> tuple[list[int], list[int]]:
    """x and y by turns, perhaps with a score at the end."""
    for num_points in (NUM_POINTS, 68):
        if len(columns) in (2 * num_points, 2 * num_points + 1):
            return columns[: 2 * num_points : 2], columns[1 : 2 * num_points : 2]
    raise _not_understood(where, f"{len(columns)} numbers after the name")


def _not_understood(where: str, got: str) -> DataError:
    return DataError(
        f"{where}: expected 'name x1 y1 ... x5 y5', perhaps a score, or 68 points, got {got}"
    )


def _split(line: str, delimiter: str | None) -> list[str]:
    return [field.strip().strip('"') for field in line.strip().split(delimiter)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _axis(title: str) -> str:
    """x or y of "x1", "lex", "left_eye_x", "x_nose"; else nothing."""
    word = title.lower()
    plain = re.sub(r"[\W\d_]+$", "", word)
    if plain[-1:] in ("x", "y"):
        return plain[-1]
    return word[0] if re.match(r"[xy][\W_]", word) else ""


def _is_score(title: str) -> bool:
    return bool(re.search(r"score|conf|prob", title.lower()))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines that are not empty."""
    try:
        with _opened(path) as file:
            for number, raw in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), start=1):
                if len(raw) >= _MAX_LINE:
                    raise _not_understood(f"{path}, line {number}", "a very long line")
                if text := raw.decode("utf-8-sig").strip():
                    yield number, text
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; expected lines of landmarks") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
        file.seek(0)
        if not is_packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked  # type: ignore[misc]  # it reads lines

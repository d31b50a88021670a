"""A set of photos -> a folder of persons of aligned faces, which can be stopped and gone on with.

    faces/Ann/1.jpg        of the photo 1.* of Ann; 1.png.jpg where there are 1.jpg and 1.png
    faces/left_out.tsv     photos without a crop: name, TAB, reason
    faces/.align.json      how the crops were made; another way needs another folder

Each crop gets its name when it is complete, so what has a name is done and is not made again.
Photos are turned upright as their EXIF data say, as OpenCV reads them: that is what landmarks of
files and detectors refer to. Nothing is written outside of the folder: a person or a file whose
name leads elsewhere, or a link inside of it that does, is left out.
"""

import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
from PIL import Image

from manyface.base.errors import ConfigError, DataError, WriteError
from manyface.base.files import write_whole
from manyface.base.progress import Progress, no_progress
from manyface.base.threads import use_one_core
from manyface.data.align import FindPoints, UInt8Array, align
from manyface.data.decode import MAX_PHOTO_PIXELS, UnreadableImageError, decode_whole
from manyface.data.records import Records
from manyface.data.records.base import person_of
from manyface.data.records.naming import is_hidden, unique_names

Form = Literal["jpg", "png"]
FORMS: tuple[Form, ...] = get_args(Form)
LEFT_OUT, HOW = "left_out.tsv", ".align.json"
_JPEG_QUALITY = 95  # colours in full resolution (4:4:4): a face has few pixels
_CHUNK = 32  # photos of a thread between two reports
_ORIENTATION = 0x0112
_LONGEST_NAME = 255  # bytes, of a file or a folder


@dataclass(frozen=True)
class How:
    """How crops are made: side in pixels, file format, where landmarks come from."""

    size: int
    form: Form
    landmarks: str


@dataclass(frozen=True)
class AlignedSet:
    """Attributes:
    written: crops made now.
    present: crops that were there.
    left_out: name of each photo without a crop, and why.
    """

    written: int
    present: int
    left_out: list[tuple[str, str]]


def align_set(
    records: Records,
    folder: str | Path,
    find: FindPoints,
    how: How,
    *,
    threads: int = 1,
    progress: Progress = no_progress,
) -> AlignedSet:
    """Write the aligned face of every photo that has landmarks.

    Args:
        records: the photos.
        folder: gets a folder for each person, and the list of those left out.
        find: landmarks of a photo; called from `threads` threads.
        progress: called with photos done and their number.

    Raises:
        ConfigError: the folder holds crops that were made in another way, or something else.
        WriteError: a crop cannot be written.
    """
    root = Path(folder).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_how(root / HOW, how)
        work = _Work(records, root, find, how)
        found = [0, 0]
        left_out: list[tuple[str, str]] = []
        for done, outcome in enumerate(work.outcomes(threads), start=1):
            if isinstance(outcome, bool):
                found[outcome] += 1
            else:
                left_out.append(outcome)
            progress(done, len(records))
        text = "".join(f"{name}\t{reason}\n" for name, reason in left_out)
        write_whole(root / LEFT_OUT, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise WriteError(error.filename or root, error) from error
    return AlignedSet(written=found[True], present=found[False], left_out=left_out)


@dataclass(frozen=True)
class _Work:
    records: Records
    root: Path
    find: FindPoints
    how: How

    def outcomes(self, threads: int) -> Iterator[bool | tuple[str, str]]:
        """Of each photo: whether its crop was written now (or was there), or why there is none."""
        with ThreadPoolExecutor(
            threads, thread_name_prefix="align", initializer=use_one_core
        ) as pool:
            pending: list[tuple[int, str]] = []
            for item in self._targets():
                pending.append(item)
                if len(pending) == _CHUNK * threads:
                    yield from pool.map(self._outcome, pending)
                    pending = []
            yield from pool.map(self._outcome, pending)

    def _targets(self) -> Iterator[tuple[int, str]]:
        """(record, name of its crop without the person), person by person."""
        starts = self.records.first_images.tolist()
        for first, end in itertools.pairwise(starts):
            names = [self.records.file_name(index) for index in range(first, end)]
            yield from zip(range(first, end), _crop_names(names, self.how.form), strict=True)

    def _outcome(self, item: tuple[int, str]) -> bool | tuple[str, str]:
        index, crop = item
        person = self.records.identity_names[person_of(self.records.first_images, index)]
        name = f"{person}/{self.records.file_name(index)}"
        try:
            target = self._target(person, crop)
            if target.exists():
                return False
            pixels = _read(self.records, index)
            face = align(pixels, self.find(name, pixels), size=self.how.size)
        except (DataError, UnreadableImageError) as error:
            return " ".join(name.split()), " ".join(str(error).split())
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, _encode(face, self.how.form))
        return True

    def _target(self, person: str, crop: str) -> Path:
        parts = [*person.split("/"), crop]
        if not all(map(_may_be_a_name, parts)):
            raise DataError("its name cannot be that of a file here")
        target = self.root.joinpath(*parts)
        if os.path.realpath(target) != os.path.join(os.path.realpath(self.root), *parts):  # noqa: PTH118
            raise DataError(f"a link leads out of {self.root}")
        return target


def _may_be_a_name(part: str) -> bool:
    return not (
        part in ("", "..")
        or "\0" in part
        or is_hidden(part)
        or len(os.fsencode(part)) > _LONGEST_NAME
    )


def _crop_names(names: Sequence[str], form: Form) -> list[str]:
    """Names of one person's crops: without the photo's suffix where that is clear."""
    stems = [Path(name).stem for name in names]
    several = {stem for stem, count in Counter(stems).items() if count > 1}
    crops = [
        f"{name if stem in several else stem}.{form}"
        for name, stem in zip(names, stems, strict=True)
    ]
    if len(set(crops)) == len(crops):
        return crops
    # Photos of several shards may have one name; "1.jpg.png" may lie beside "1.jpg" and "1.png".
    return unique_names([f"{name}.{form}" for name in names])


def _read(records: Records, index: int) -> UInt8Array:
    """The photo's pixels, upright; DataError if there are none."""
    try:
        data = records.read(index)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    return upright(decode_whole(data, max_pixels=MAX_PHOTO_PIXELS), data)


# What EXIF's numbers ask for, on [H, W, 3].
_TURNS: dict[int, Callable[[UInt8Array], UInt8Array]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


def upright(pixels: UInt8Array, data: bytes) -> UInt8Array:
    """A photo's pixels [H, W, 3] turned as its EXIF data say, `data` being its encoded bytes."""
    orientation = 1
    may_say_it = b"Exif" in data[:1024] or b"eXIf" in data[:1024] or data[8:12] == b"WEBP"
    if may_say_it:  # WebP has it at the end
        with suppress(Exception), Image.open(io.BytesIO(data)) as image:  # broken ones are unturned
            orientation = image.getexif().get(_ORIENTATION, 1)
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _encode(face: UInt8Array, form: Form) -> bytes:
    if form == "jpg":
        encoded: bytes = simplejpeg.encode_jpeg(
            face, quality=_JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
        )
        return encoded
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "PNG")
    return buffer.getvalue()


def _check_how(path: Path, how: How) -> None:
    wanted = asdict(how)
    if not path.exists():
        others = (each.name for each in path.parent.iterdir() if not is_hidden(each.name))
        if (other := next(others, None)) is not None:
            raise ConfigError(
                f"{path.parent} holds {other!r}, and no aligned faces; give a folder that is new"
            )
        write_whole(path, json.dumps(wanted).encode())
        return
    try:
        kept: Any = json.loads(path.read_bytes())
    except ValueError:
        kept = None
    if kept != wanted:
        raise ConfigError(
            f"{path.parent} holds faces that were aligned in another way ({kept}, now {wanted}); "
            "give another folder"
        )

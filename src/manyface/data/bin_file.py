"""Verification sets as insightface keeps them: one pickle of images and answers (`lfw.bin`).

    ([image 0, image 1, image 2, ...], [same 0, same 1, ...])    2n encoded images, n answers

Images 2i and 2i + 1 are pair i. Files in use hold them as bytes or as numpy arrays, written by
Python 2 and 3; all are read, none is executed (unpickle.py). docs/formats/bin.md has the bytes.
"""

import pickle
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.base.files import written
from manyface.data.records.base import GroupedRecords
from manyface.data.unpickle import NEWEST_PROTOCOL, PickledArray, unpickle

MAX_BYTES = 4 << 30  # read whole; the largest sets in use have 0.1 GB


@dataclass(frozen=True)
class VerificationSet:
    """P pairs of encoded images.

    Attributes:
        images: 2P of them; 2i and 2i + 1 are pair i.
        same: bool [P], whether both show one person.
    """

    images: Sequence[bytes]
    same: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.same)


def is_bin(head: bytes) -> bool:
    """Whether a file that begins so may be such a pickle: a pair, of any protocol."""
    if head[:1] == b"\x80":
        return 2 <= head[1] <= NEWEST_PROTOCOL if len(head) > 1 else False
    return head[:1] == b"]" or head[:2] in (b"((", b"(]", b"(l")  # protocols 0 and 1


def find_bin(name: str | Path, *, near: Path) -> Path | None:
    """The verification set called `name`: in or beside the data `near`, or anywhere on disk.

    None if there is no file of that name, or none that is one by its content.
    """
    name = Path(name).expanduser()
    for place in (near / name, near.parent / name, name):
        with suppress(OSError), place.open("rb") as file:
            if is_bin(file.read(2)):
                return place
    return None


def read_bin(path: str | Path) -> VerificationSet:
    """The verification set in the file `path`.

    Raises:
        DataError: it cannot be read, holds something else, or images and answers do not match.
    """
    path = Path(path).expanduser()
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(
                f"{path} has {size} bytes; verification sets are read whole, up to {MAX_BYTES}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return parse_bin(data, str(path))


def write_bin(path: str | Path, pairs: VerificationSet) -> None:
    """Write `pairs` for insightface and all that read its files, or nothing.

    Raises:
        WriteError: it cannot be written.
    """
    path = Path(path).expanduser()
    images, same = list(pairs.images), [bool(answer) for answer in pairs.same]
    _check_counts(len(images), len(same), str(path))
    with written(path) as file:
        pickle.dump((images, same), file, protocol=4)


def first_places(images: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Of each image the place of the first that has the same bytes, int64 [n]: a photo that is in
    many pairs is there as often, and need be looked at once."""
    seen: dict[bytes, int] = {}
    places = [seen.setdefault(image, place) for place, image in enumerate(images)]
    return np.array(places, np.int64)


class BinRecords(GroupedRecords):
    """The images of a verification set as records, in its order.

    Nobody is named in it, so a person here is what a pair tells: the two images of a same pair, or
    one image of a different one.
    """

    def __init__(self, path: Path, pairs: VerificationSet) -> None:
        names: list[str] = []
        counts: list[int] = []
        for number, same in enumerate(pairs.same.tolist()):
            names += [f"pair {number}"] if same else [f"pair {number} left", f"pair {number} right"]
            counts += [2] if same else [1, 1]
        super().__init__(path, identity_names=names, images_per_identity=counts)
        self.pairs = pairs

    def read(self, index: int) -> bytes:
        return self.pairs.images[index]

    def file_name(self, index: int) -> str:
        return f"{index:06d}.jpg"

    def describe(self, index: int) -> str:
        return f"{self.path}, image {index} (of pair {index // 2})"

    def read_text(self, name: str) -> str:
        raise DataError(f"no file {name!r} in {self.path}: a verification set holds images only")

    @property
    def index_bytes(self) -> int:
        return self.first_images.nbytes


def parse_bin(data: bytes, where: str) -> VerificationSet:
    """The verification set that the bytes `data` are; `where` names them in a DataError."""
    value = unpickle(data, where)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise DataError(
            f"{where} holds {_kind(value)}; expected a pair: a list of images, a list of answers"
        )
    images, answers = value
    if not isinstance(images, list | tuple):
        raise DataError(f"{where}: expected a list of images first, got {_kind(images)}")
    same = _answers(answers, where)
    _check_counts(len(images), len(same), where)
    return VerificationSet(
        images=[_image(image, f"{where}, image {k}") for k, image in enumerate(images)], same=same
    )


def _check_counts(num_images: int, num_answers: int, where: str) -> None:
    if not num_answers or num_images != 2 * num_answers:
        raise DataError(
            f"{where}: {num_images} images and {num_answers} answers; expected two images for each "
            "answer, and at least one"
        )


def _image(value: Any, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, PickledArray):
        raise DataError(f"{where}: expected an encoded image, got {_kind(value)}")
    if value.code != "u1" or max(value.shape, default=0) != len(value.data):
        raise DataError(
            f"{where}: expected the bytes of an encoded image, got an array {value.shape} of "
            f"{value.code}; encode pixels as JPEG or PNG first"
        )
    return value.data


def _answers(value: Any, where: str) -> npt.NDArray[np.bool_]:
    if isinstance(value, PickledArray):
        dtype = np.dtype(value.order + value.code)
        value = np.frombuffer(value.data, dtype).tolist()
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: expected a list of answers second, got {_kind(value)}")
    for number, answer in enumerate(value):
        if not isinstance(answer, int) or answer not in (0, 1):
            shown = answer if isinstance(answer, int) else _kind(answer)
            raise DataError(f"{where}, answer {number}: expected True or False, got {shown}")
    return np.array(value, dtype=bool)


def _kind(value: Any) -> str:
    """A value in words, without its contents."""
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, PickledArray):
        return f"an array {value.shape} of {value.code}"
    return "a name" if not isinstance(value, str | bytes | int | None) else type(value).__name__

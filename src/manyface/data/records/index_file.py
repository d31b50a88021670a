"""Arrays and notes in one file, laid out as safetensors are, and mapped: the file of an index.

A flipped bit in it would give a record to somebody else, so the notes hold a hash of each array.
Those of people, which are short, are compared whenever the file is opened; those of records would
cost seconds and are compared on request (`wrong_hash`). An array that is too long for memory is
written part by part (`Parts`).
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash

Arrays = dict[str, npt.NDArray[Any]]

_LARGEST_HEADER = 64 << 20
_DTYPES: dict[str, type[np.generic]] = {
    "U64": np.uint64,
    "I64": np.int64,
    "U32": np.uint32,
    "U8": np.uint8,
    "F32": np.float32,
    "F16": np.float16,
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_OF_PEOPLE = ("starts", "numbers", "people.ends", "people.text")


@dataclass(frozen=True)
class Parts:
    """An array [N, ...] that is made part by part, each time `make` is called: arrays of one dtype
    that follow each other along the first axis."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], Iterable[npt.NDArray[Any]]]

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_arrays(
    file: BinaryIO, arrays: Mapping[str, npt.NDArray[Any] | Parts], notes: Mapping[str, str]
) -> None:
    """All of them, the widest first so that each is aligned."""
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    hashes = {name: _hash(array) for name, array in ordered}
    file.write(_header(dict(ordered), {**notes, "hashes": json.dumps(hashes)}))
    for _, array in ordered:
        for data in _bytes_of(array):
            file.write(data)


def map_arrays(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays and notes in the file `path`; ValueError or KeyError if it is none, or damaged."""
    raw = np.memmap(path, np.uint8, mode="r")
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if not 2 <= length <= min(_LARGEST_HEADER, len(raw) - 8):
        raise ValueError("no header")
    header = json.loads(raw[8 : 8 + length].tobytes())
    notes = header.pop("__metadata__", {})
    arrays = {name: _array(raw[8 + length :], entry) for name, entry in header.items()}
    return arrays, notes


def check_arrays(arrays: Arrays, notes: Mapping[str, str]) -> None:
    """ValueError if the arrays do not fit each other, or those of people are damaged."""
    if json.loads(notes["hashes"]).keys() != arrays.keys():
        raise ValueError("an array is missing")
    if any(array.ndim != 1 for array in arrays.values()):
        raise ValueError("an array is no list")
    of_people = {name: arrays[name] for name in _OF_PEOPLE if name in arrays}
    if (name := wrong_hash(of_people, notes)) is not None:
        raise ValueError(f"{name} is damaged")
    count, starts = len(arrays["places"]), arrays["starts"]
    for name in ("sizes", "labels", "checksums", "order", "ranks"):
        if name in arrays and len(arrays[name]) != count:
            raise ValueError(f"{name} does not fit")
    _check_ends("starts", starts, count)
    for name, length in (("people", len(starts)), ("names", count + 1)):
        if f"{name}.ends" in arrays:
            ends, text = arrays[f"{name}.ends"], arrays[f"{name}.text"]
            if len(ends) != length or ends[0] != 0 or ends[-1] != len(text):
                raise ValueError(f"{name} do not fit")
    if "people.ends" in arrays:
        _check_ends("people.ends", arrays["people.ends"], len(arrays["people.text"]))
    elif len(arrays["numbers"]) != len(starts) - 1:
        raise ValueError("people do not fit")


def wrong_hash(arrays: Arrays, notes: Mapping[str, str]) -> str | None:
    """The first of `arrays` that is not what was written; None if none is."""
    hashes = json.loads(notes.get("hashes", "{}"))
    wrong = (name for name, array in arrays.items() if hashes.get(name) != _hash(array))
    return next(wrong, None)


def _hash(array: npt.NDArray[Any] | Parts) -> str:
    digest = xxhash.xxh3_64()
    for data in _bytes_of(array):
        digest.update(data)
    return digest.hexdigest()


def _bytes_of(array: npt.NDArray[Any] | Parts) -> Iterator[memoryview]:
    for part in array.make() if isinstance(array, Parts) else (array,):
        yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data


def _check_ends(name: str, ends: npt.NDArray[np.int64], last: int) -> None:
    """They ascend from 0 to `last`: who comes with a file may have hashed what he damaged."""
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != last or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"{name} do not fit")


def _header(arrays: Mapping[str, npt.NDArray[Any] | Parts], notes: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(notes)}
    offset = 0
    for name, array in arrays.items():
        span = [offset, offset + array.nbytes]
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": span,
        }
        offset = span[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _array(data: npt.NDArray[np.uint8], entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if min(shape) < 0 or not 0 <= start <= end <= len(data) or end - start != num_bytes:
        raise ValueError("cut off")
    return data[start:end].view(dtype).reshape(shape)

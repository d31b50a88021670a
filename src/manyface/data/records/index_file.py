"""Arrays and notes in one file, laid out as safetensors are, and mapped: the file of an index.

A flipped bit in it would give a record to somebody else, so the notes hold a hash of each array.
Those of people, which are short, are compared whenever the file is opened; those of records would
cost seconds and are compared on request (`wrong_hash`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash

Arrays = dict[str, npt.NDArray[Any]]

_LARGEST_HEADER = 64 << 20
_DTYPES = {"U64": np.uint64, "I64": np.int64, "U32": np.uint32, "U8": np.uint8}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_OF_PEOPLE = ("starts", "numbers", "people.ends", "people.text")


def write_arrays(file: BinaryIO, arrays: Arrays, notes: Mapping[str, str]) -> None:
    """All of them, the widest first so that each is aligned."""
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    hashes = {name: _hash(array) for name, array in ordered}
    file.write(_header(dict(ordered), {**notes, "hashes": json.dumps(hashes)}))
    for _, array in ordered:
        file.write(np.ascontiguousarray(array).view(np.uint8).data)


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


def _hash(array: npt.NDArray[Any]) -> str:
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).view(np.uint8).data)


def _check_ends(name: str, ends: npt.NDArray[np.int64], last: int) -> None:
    """They ascend from 0 to `last`: who comes with a file may have hashed what he damaged."""
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != last or (ends[1:] < ends[:-1]).any():
        raise ValueError(f"{name} do not fit")


def _header(arrays: Arrays, notes: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(notes)}
    offset = 0
    for name, array in arrays.items():
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": _CODES[array.dtype], "shape": [len(array)], "data_offsets": span}
        offset = span[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _array(data: npt.NDArray[np.uint8], entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    dtype, (length,), (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not 0 <= start <= end <= len(data) or end - start != length * np.dtype(dtype).itemsize:
        raise ValueError("cut off")
    return data[start:end].view(dtype)

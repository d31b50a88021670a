"""A safetensors writer that streams: one tensor at a time goes to the file, hashed on the way.

The library's writer builds the whole file in memory first (measured elsewhere: 1.85 GB extra for a
file of 1.02 GB). The format needs no more than this: 8 bytes with the length of a JSON header, the
header, the raw little-endian tensors. Reading stays with the library, which also checks the header.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.checkpoint import disk
from manyface.checkpoint.hashing import LARGEST_BLOCK, BlockHash, FileFacts
from manyface.checkpoint.tables import RowShard, StoredTable

_PIECE_NUMBERS = 1 << 22

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

# A tensor; the rows of one that this rank has; one that lies in the files of another checkpoint.
Saved = Tensor | RowShard | StoredTable


def write_file(
    path: Path, chunks: Iterable[bytes | memoryview], *, block_bytes: int = LARGEST_BLOCK
) -> FileFacts:
    """Write `chunks` to a new file, force it to the disk; returns its size and hashes."""
    digest = BlockHash(block_bytes)
    with disk.NewFile(path) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.sync()
    return digest.facts()


def safetensors_chunks(
    tensors: Mapping[str, Saved], metadata: Mapping[str, str] | None = None
) -> Iterable[bytes | memoryview]:
    """The bytes of a safetensors file, header first, then tensor by tensor; `metadata` are texts
    that the header has beside them."""
    # Wide types first, so that every tensor starts at a multiple of its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    yield _header(ordered, metadata)
    for _, tensor in ordered:
        for part in _parts(tensor):
            yield from raw_bytes(part)


def num_bytes_of(tensors: Mapping[str, Saved]) -> int:
    """Bytes of the tensors without the header; of a RowShard those of this rank."""
    return sum(math.prod(shape_here(each)) * each.dtype.itemsize for each in tensors.values())


def dtype_name(name: str, tensor: Saved) -> str:
    """What safetensors calls the dtype; TypeError for one that cannot be saved."""
    if tensor.dtype not in DTYPE_NAMES:
        raise TypeError(f"tensor {name!r} has dtype {tensor.dtype}, which cannot be saved")
    return DTYPE_NAMES[tensor.dtype]


def shape_here(tensor: Saved) -> tuple[int, ...]:
    """Of what this rank writes."""
    return tuple(tensor.values.shape if isinstance(tensor, RowShard) else tensor.shape)


def _header(ordered: list[tuple[str, Saved]], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in ordered:
        shape = shape_here(tensor)
        end = offset + math.prod(shape) * tensor.dtype.itemsize
        entries[name] = {
            "dtype": dtype_name(name, tensor),
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parts(tensor: Saved) -> Iterable[Tensor]:
    if isinstance(tensor, StoredTable):
        return tensor.parts()
    return [tensor.values if isinstance(tensor, RowShard) else tensor]


def raw_bytes(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, some at a time: one that lies on a GPU is copied in pieces."""
    for piece in torch.split(tensor.detach().contiguous().reshape(-1), _PIECE_NUMBERS):
        found: npt.NDArray[np.uint8] = piece.cpu().view(torch.uint8).numpy()
        yield found.data

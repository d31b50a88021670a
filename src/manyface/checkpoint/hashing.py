"""Hashes of files in blocks, so that ranks share the work of checking a file.

The hash is xxh3 with 128 bits: it finds damage (one flipped bit in gigabytes) at memory speed, it
is no protection against somebody who forges a checkpoint.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from manyface.base.errors import DamagedCheckpointError

SMALLEST_BLOCK, LARGEST_BLOCK = 1 << 20, 1 << 26
_BLOCKS = 2048  # about so many in a checkpoint: a part of it begins and ends inside of one
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class FileFacts:
    """What a file must be.

    Attributes:
        num_bytes: its size.
        block_bytes: of each block but the last.
        hashes: xxh3-128 of each block; none of an empty file.
    """

    num_bytes: int
    block_bytes: int
    hashes: tuple[str, ...]


def choose_block(num_bytes: int) -> int:
    """Bytes of a block, a power of two between the limits, for a checkpoint of `num_bytes`."""
    wanted = 1 << (num_bytes // _BLOCKS).bit_length()
    return max(SMALLEST_BLOCK, min(LARGEST_BLOCK, wanted))


class BlockHash:
    """The hashes of what is passed to `update`, in blocks of `block_bytes`."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._num_bytes = 0
        self._hashes: list[str] = []
        self._digest = xxhash.xxh3_128()

    def update(self, data: bytes | memoryview) -> None:
        """Take in the next bytes, any number."""
        rest = memoryview(data)
        while rest:
            room = self._block_bytes - self._num_bytes % self._block_bytes
            self._digest.update(rest[:room])
            self._num_bytes += len(rest[:room])
            if len(rest) >= room:
                self._close_block()
            rest = rest[room:]

    def facts(self) -> FileFacts:
        """Of all bytes so far; ends the last block."""
        if self._num_bytes % self._block_bytes:
            self._close_block()
        return FileFacts(self._num_bytes, self._block_bytes, tuple(self._hashes))

    def _close_block(self) -> None:
        self._hashes.append(self._digest.hexdigest())
        self._digest.reset()


def check_size(path: Path, facts: FileFacts) -> None:
    """Raise DamagedCheckpointError if the file has another size."""
    num_bytes = path.stat().st_size
    if num_bytes != facts.num_bytes:
        raise DamagedCheckpointError(
            f"{path} is damaged: expected {facts.num_bytes} bytes, got {num_bytes}"
        )


def check_blocks(path: Path, facts: FileFacts, blocks: Iterable[int]) -> None:
    """Raise DamagedCheckpointError at the first of `blocks` with another hash."""
    with path.open("rb", buffering=0) as file:
        for block in blocks:
            file.seek(block * facts.block_bytes)
            digest, left = xxhash.xxh3_128(), facts.block_bytes
            while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
            if digest.hexdigest() != facts.hashes[block]:
                raise DamagedCheckpointError(
                    f"{path} is damaged: expected xxh3 {facts.hashes[block]}, got "
                    f"{digest.hexdigest()}"
                )

"""MANIFEST.json: which files make a checkpoint, their sizes and hashes, which rows lie in which.

The manifest carries a hash of itself and has one single spelling, so that every flipped bit in it
is found as well. Version 1 knew one writer only: no tables, and one hash for a whole file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import xxhash

from manyface.base.errors import CheckpointError, DamagedCheckpointError
from manyface.checkpoint.hashing import FileFacts
from manyface.checkpoint.layout import FORMAT, FORMAT_VERSION, MANIFEST_NAME, is_file_name
from manyface.checkpoint.stream import DTYPE_NAMES

DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class TableFacts:
    """A table whose rows lie in several files.

    Attributes:
        dtype: as safetensors calls it.
        shape: of the whole, rows first.
        rows: file -> (first row, one past the last).
    """

    dtype: str
    shape: tuple[int, ...]
    rows: dict[str, tuple[int, int]]

    def in_order(self) -> list[tuple[int, int, str]]:
        """(start, stop, file), ascending."""
        return sorted((start, stop, file) for file, (start, stop) in self.rows.items())

    def row_bytes(self) -> int:
        """Of one row."""
        return DTYPES[self.dtype].itemsize * torch.Size(self.shape[1:]).numel()


Tables = Mapping[str, Mapping[str, TableFacts]]  # group -> name ->


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        step: finished updates.
        files: name -> what it must be.
        num_ranks: that wrote it.
        tables: those that lie in several files.
    """

    step: int
    files: Mapping[str, FileFacts]
    num_ranks: int = 1
    tables: Tables = field(default_factory=dict)


def render(manifest: Manifest) -> bytes:
    """The bytes of a manifest; equal content gives equal bytes."""
    files = {
        name: {"bytes": facts.num_bytes, "xxh3": facts.hashes}
        for name, facts in manifest.files.items()
    }
    tables = {
        group: {name: vars(facts) for name, facts in members.items()}
        for group, members in manifest.tables.items()
    }
    block_bytes = {facts.block_bytes for facts in manifest.files.values()}  # one for all
    return _spell(
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "step": manifest.step,
            "ranks": manifest.num_ranks,
            "block_bytes": block_bytes.pop(),
            "files": files,
            "tables": tables,
        }
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint directory `path`, versions 1 and 2.

    Raises DamagedCheckpointError for one that is not what was written, or whose tables have a row
    twice or not at all; CheckpointError for one of another version.
    """
    file = path / MANIFEST_NAME
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{file} is missing") from error
    try:
        body = json.loads(content.decode())  # of bytes it would guess, and import, an encoding
        version = (body["format"], body["version"])
        if version in ((FORMAT, 1), (FORMAT, FORMAT_VERSION)):
            if _spell({key: value for key, value in body.items() if key != "xxh3"}) != content:
                raise ValueError("its content and its hash disagree")
            return _parse_1(body) if version[1] == 1 else _parse(body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = str(error) if type(error) is ValueError else type(error).__name__
        raise DamagedCheckpointError(f"{file} is damaged: {what}") from error
    raise CheckpointError(
        f"{file}: expected format {FORMAT} version {FORMAT_VERSION}, got "
        f"{version[0]} version {version[1]}: use the manyface that wrote it, or move "
        f"{path.name} away to go on from an earlier checkpoint"
    )


def check_tiling(label: str, facts: TableFacts) -> None:
    """Raise ValueError naming the file that has a row twice, or before which one is missing."""
    ends = [(0, 0, ""), *facts.in_order(), (facts.shape[0], facts.shape[0], "")]
    for (_, before, _), (start, stop, file) in pairwise(ends):
        if start != before or stop < start:
            place = file or "its last file"
            raise ValueError(
                f"{label}: expected row {before} of {facts.shape[0]} to come next, {place} has "
                f"rows {start} to {stop}"
            )


def _parse_1(body: dict[str, Any]) -> Manifest:
    files = {}
    for name, facts in body["files"].items():
        num_bytes = _count(facts["bytes"])
        files[_file_name(name)] = FileFacts(num_bytes, max(num_bytes, 1), (facts["xxh3"],))
    return Manifest(_count(body["step"]), files)


def _parse(body: dict[str, Any]) -> Manifest:
    block_bytes = _count(body["block_bytes"])
    files = {
        _file_name(name): FileFacts(_count(facts["bytes"]), block_bytes, tuple(facts["xxh3"]))
        for name, facts in body["files"].items()
    }
    if not files:
        raise ValueError("it names no file")
    for name, facts in files.items():
        if block_bytes == 0 or len(facts.hashes) != -(-facts.num_bytes // block_bytes):
            raise ValueError(f"{name} has {len(facts.hashes)} hashes for {facts.num_bytes} bytes")
    tables = {
        group: {name: _parse_table(f"{group}: {name}", facts, files) for name, facts in of.items()}
        for group, of in body["tables"].items()
    }
    return Manifest(_count(body["step"]), files, _count(body["ranks"]), tables)


def _parse_table(label: str, body: dict[str, Any], files: Mapping[str, FileFacts]) -> TableFacts:
    rows = {file: (_count(start), _count(stop)) for file, (start, stop) in body["rows"].items()}
    facts = TableFacts(body["dtype"], tuple(_count(size) for size in body["shape"]), rows)
    if facts.dtype not in DTYPES or not facts.shape:
        raise ValueError(f"{label}: a table of {facts.dtype} {list(facts.shape)}")
    if unknown := sorted(rows.keys() - files.keys()):
        raise ValueError(f"{label}: its rows lie in {unknown[0]}, which is no file of it")
    check_tiling(label, facts)
    return facts


def _file_name(name: object) -> str:
    if not is_file_name(name) or name == MANIFEST_NAME:
        raise ValueError(f"{name!r} is no name of a file")
    return str(name)


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected a number, got {value!r}")
    return value


def _spell(body: dict[str, Any]) -> bytes:
    body = {**body, "xxh3": xxhash.xxh3_128_hexdigest(_text(body))}
    return _text(body)


def _text(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()

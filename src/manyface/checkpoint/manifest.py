"""MANIFEST.json: which files make a checkpoint, their sizes and hashes; written and checked here.

The hash is xxh3 with 128 bits: it finds damage (one flipped bit in gigabytes) at memory speed, it
is no protection against somebody who forges a checkpoint. The manifest carries a hash of itself and
has one single spelling, so that every flipped bit in it is found as well.
"""

import json
from pathlib import Path
from typing import Any

import xxhash

from manyface.base.errors import CheckpointError, DamagedCheckpointError
from manyface.checkpoint.layout import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_NAME,
    is_file_name,
    step_of,
)

_CHUNK_BYTES = 1 << 22

Files = dict[str, dict[str, Any]]


def render(step: int, files: Files) -> bytes:
    """The bytes of a manifest; equal content gives equal bytes."""
    body = {"format": FORMAT, "version": FORMAT_VERSION, "step": step, "files": files}
    body["xxh3"] = xxhash.xxh3_128_hexdigest(_spell(body))
    return _spell(body)


def verify(path: Path) -> Files:
    """Check a checkpoint directory against its manifest and return the manifest's files.

    Raises DamagedCheckpointError naming the first file that is missing, extra, cut or changed;
    CheckpointError for a manifest of another version.
    """
    step, files = _read(path)
    if step != step_of(path):
        raise DamagedCheckpointError(f"{path}: its manifest is of step {step}, so of another one")
    present = {entry.name for entry in path.iterdir()} - {MANIFEST_NAME}
    if missing := sorted(files.keys() - present):
        raise DamagedCheckpointError(f"{path / missing[0]} is missing")
    if extra := sorted(present - files.keys()):
        raise DamagedCheckpointError(f"{path / extra[0]} is not in the manifest")
    for name, facts in files.items():
        _verify_file(path / name, facts)
    return files


def hash_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, read in chunks."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _verify_file(path: Path, facts: dict[str, Any]) -> None:
    num_bytes = path.stat().st_size
    if num_bytes != facts["bytes"]:
        raise DamagedCheckpointError(
            f"{path} is damaged: expected {facts['bytes']} bytes, got {num_bytes}"
        )
    digest = hash_file(path)
    if digest != facts["xxh3"]:
        raise DamagedCheckpointError(
            f"{path} is damaged: expected xxh3 {facts['xxh3']}, got {digest}"
        )


def _read(path: Path) -> tuple[int, Files]:
    manifest_path = path / MANIFEST_NAME
    try:
        content = manifest_path.read_bytes()
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{manifest_path} is missing") from error
    try:
        manifest = json.loads(content)
        found_format = (manifest["format"], manifest["version"])
        step, files = manifest["step"], manifest["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCheckpointError(
            f"{manifest_path} is damaged: {type(error).__name__}"
        ) from error
    if found_format != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(
            f"{manifest_path}: expected format {FORMAT} version {FORMAT_VERSION}, got "
            f"{found_format[0]} version {found_format[1]}: use the manyface that wrote it, or move "
            f"{path.name} away to go on from an earlier checkpoint"
        )
    if not _well_formed(step, files) or render(step, files) != content:
        raise DamagedCheckpointError(
            f"{manifest_path} is damaged: its content and its hash disagree"
        )
    return step, files


def _well_formed(step: object, files: object) -> bool:
    return (
        type(step) is int
        and isinstance(files, dict)
        and all(is_file_name(name) and name != MANIFEST_NAME for name in files)
        and all(
            isinstance(facts, dict) and facts.keys() == {"bytes", "xxh3"}
            for facts in files.values()
        )
    )


def _spell(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()

"""Writing a checkpoint so that at every instant the disk holds the old one, the new one, or both.

1. Check the free space; write into `.tmp-<step>-<random>` beside the final name.
2. Stream every group of tensors and `state.json`, hashing on the way; force each to the disk.
3. Write MANIFEST.json, force it and the directory to the disk.
4. Rename to `step-<n>` and force the parent: the rename is the commit.

A writer that dies before 4 leaves only a `.tmp-` directory, which nobody ever reads.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from manyface.base.errors import CheckpointError
from manyface.checkpoint.layout import (
    MANIFEST_NAME,
    STATE_NAME,
    TEMPORARY_PREFIX,
    TENSOR_SUFFIX,
    newest,
    step_name,
)
from manyface.checkpoint.manifest import Files, render
from manyface.checkpoint.stream import num_bytes_of, safetensors_chunks, write_file

_SPARE = 1.2  # free space wanted, as a multiple of what is going to be written

Groups = Mapping[str, Mapping[str, torch.Tensor]]


def save(directory: Path, *, step: int, tensors: Groups, state: Mapping[str, Any]) -> Path:
    """Commit a checkpoint of `step` in `directory` and return its path.

    Args:
        tensors: group -> name -> tensor; each group becomes `<group>.safetensors`.
        state: anything JSON can say exactly; becomes `state.json`.

    Raises CheckpointError naming path and errno; earlier checkpoints are not touched.
    """
    final = directory / step_name(step)
    temporary = directory / f"{TEMPORARY_PREFIX}{step}-{secrets.token_hex(4)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if final.exists():
            raise FileExistsError(errno.EEXIST, "a checkpoint of this step exists", str(final))
        _check_space(directory, sum(num_bytes_of(group) for group in tensors.values()))
        _write_all(temporary, step=step, tensors=tensors, state=state)
        temporary.rename(final)
        sync_directory(directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _cannot_save(final, error) from error
    return final


def write_pointer(directory: Path, name: str, checkpoint: Path, **facts: Any) -> None:
    """Replace `<name>.json` so that it points to `checkpoint`; atomic."""
    path = directory / f"{name}.json"
    content = json.dumps({"checkpoint": checkpoint.name, **facts}, indent=1) + "\n"
    try:
        replace_file(path, content.encode())
    except OSError as error:
        raise _cannot_save(path, error) from error


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`: readers see the old file or the whole new one."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        write_file(temporary, [content])
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(path: Path, *, step: int, tensors: Groups, state: Mapping[str, Any]) -> None:
    path.mkdir()
    files: Files = {}
    for group, members in tensors.items():
        name = group + TENSOR_SUFFIX
        files[name] = write_file(path / name, safetensors_chunks(members))
    text = json.dumps(state, indent=1, allow_nan=False) + "\n"
    files[STATE_NAME] = write_file(path / STATE_NAME, [text.encode()])
    write_file(path / MANIFEST_NAME, [render(step, files)])
    sync_directory(path)


def _check_space(directory: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < num_bytes * _SPARE:
        text = f"{os.strerror(errno.ENOSPC)}: {num_bytes} bytes to write, {free} free"
        raise OSError(errno.ENOSPC, text, str(directory))


def _cannot_save(path: Path, error: OSError) -> CheckpointError:
    code = errno.errorcode.get(error.errno or 0, "?")
    kept = newest(path.parent) if path.parent.is_dir() else None
    standing = f"the newest good checkpoint is still {kept}" if kept else "there is no earlier one"
    return CheckpointError(
        f"cannot save {path}: {error.strerror or error} ({code}, errno {error.errno}); {standing}; "
        "mend the cause, then resume the run"
    )

"""Writing a checkpoint so that at every instant the disk holds the old one, the new one, or both.

1. All ranks: what they have fits together, and copies of one tensor are equal.
2. Rank 0 checks the free space and makes `.tmp-<step>-<random>` beside the final name.
3. Every rank streams the rows that it has, rank 0 all else, hashing on the way; each forces its
   files to the disk and says what they are.
4. Rank 0 writes MANIFEST.json and forces it and the directory to the disk.
5. It renames to `step-<n>` and forces the parent: the rename is the commit. All learn of it.

A writer that dies before 5 leaves only a `.tmp-` directory, which nobody ever reads.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from manyface.base.errors import CheckpointError
from manyface.checkpoint import disk
from manyface.checkpoint.hashing import FileFacts, choose_block
from manyface.checkpoint.layout import (
    MANIFEST_NAME,
    STATE_NAME,
    TEMPORARY_PREFIX,
    TENSOR_SUFFIX,
    newest,
    shard_file,
    step_name,
)
from manyface.checkpoint.manifest import Manifest, TableFacts, Tables, check_tiling, render
from manyface.checkpoint.replicas import check_replicas
from manyface.checkpoint.stream import (
    Saved,
    dtype_name,
    num_bytes_of,
    safetensors_chunks,
    write_file,
)
from manyface.checkpoint.tables import RowShard
from manyface.checkpoint.together import SystemCallError, by_first, describe, itself, together
from manyface.parallel import Ranks

_SPARE = 1.2  # free space wanted, as a multiple of what is going to be written

Groups = Mapping[str, Mapping[str, Saved]]


def save(
    directory: Path,
    *,
    step: int,
    tensors: Groups,
    state: Mapping[str, Any],
    ranks: Ranks | None = None,
) -> Path:
    """Commit a checkpoint of `step` in `directory` and return its path; all `ranks` call this.

    Args:
        tensors: group -> name -> tensor; each group becomes `<group>.safetensors`, written by
            rank 0. Of a RowShard each rank writes its rows, `<group>-<rank>-of-<size>.safetensors`.
        state: anything JSON can say exactly; becomes `state.json`. That of rank 0 counts.
        ranks: that save together; default: all there are.

    Raises, on all ranks alike: CheckpointError naming rank, path and errno; earlier checkpoints are
    not touched. ReplicaError for a tensor that ranks have different copies of.
    """
    ranks = ranks or Ranks()
    final = directory / step_name(step)
    check_replicas(tensors, ranks)
    _, plans = together(ranks, "what is saved", lambda: _plan(tensors, ranks), tell=itself)
    tables = _join_tables([plan["tables"] for plan in plans])
    num_bytes = sum(plan["bytes"] for plan in plans)
    try:
        temporary = _begin(final, num_bytes, step=step, ranks=ranks)
        try:
            files = _write(temporary, tensors, state, ranks, block_bytes=choose_block(num_bytes))
            manifest = Manifest(step, files, ranks.size, tables)
            by_first(ranks, "commit of a checkpoint", lambda: _commit(temporary, manifest, final))
        except BaseException:
            if ranks.rank == 0:
                disk.discard(temporary)
            raise
    except SystemCallError as error:
        raise _cannot_save(final, str(error)) from error
    return final


def write_pointer(directory: Path, name: str, checkpoint: Path, **facts: Any) -> None:
    """Replace `<name>.json` so that it points to `checkpoint`; atomic."""
    path = directory / f"{name}.json"
    content = json.dumps({"checkpoint": checkpoint.name, **facts}, indent=1) + "\n"
    try:
        replace_file(path, content.encode())
    except OSError as error:
        raise _cannot_save(path, describe(error)) from error


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`: readers see the old file or the whole new one."""
    replace_with(path, [content])


def replace_with(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """As `replace_file`, from a stream."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        write_file(temporary, chunks)
        disk.rename(temporary, path)
    except OSError:
        disk.discard(temporary)
        raise
    disk.sync_directory(path.parent)


def _plan(tensors: Groups, ranks: Ranks) -> dict[str, Any]:
    """Of this rank: the bytes that it writes, and its rows of each table."""
    tables, num_bytes = {}, 0
    for group, members in tensors.items():
        mine, ours = _divide(members, ranks)
        num_bytes += num_bytes_of(mine) + (num_bytes_of(ours) if ranks.rank == 0 else 0)
        file = shard_file(group, rank=ranks.rank, size=ranks.size)
        for name, tensor in ours.items():
            dtype_name(name, tensor)
        tables[group] = {
            name: asdict(
                TableFacts(
                    dtype_name(name, rows), rows.shape, {file: (rows.shard.start, rows.shard.stop)}
                )
            )
            for name, rows in mine.items()
        }
    return {"bytes": num_bytes, "tables": tables}


def _divide(
    members: Mapping[str, Saved], ranks: Ranks
) -> tuple[dict[str, RowShard], dict[str, Saved]]:
    """The rows that each rank writes, and what rank 0 writes: all tables too if it is alone."""
    mine: dict[str, RowShard] = {}
    ours: dict[str, Saved] = {}
    for name, tensor in members.items():
        if isinstance(tensor, RowShard) and not (ranks.is_alone and tensor.shard.is_whole):
            mine[name] = tensor
        else:
            ours[name] = tensor
    return mine, ours


def _join_tables(said: list[dict[str, dict[str, dict[str, Any]]]]) -> Tables:
    """The tables of all ranks; CheckpointError if they are not parts of the same ones."""
    joined: dict[str, dict[str, TableFacts]] = {}
    for group in dict.fromkeys(group for groups in said for group in groups):
        names = dict.fromkeys(name for groups in said for name in groups.get(group, {}))
        tables = {name: _join(f"{group}: {name}", group, name, said) for name in names}
        if tables:
            joined[group] = tables
    return joined


def _join(
    label: str, group: str, name: str, said: list[dict[str, dict[str, dict[str, Any]]]]
) -> TableFacts:
    parts = [groups.get(group, {}).get(name) for groups in said]
    first = next(part for part in parts if part is not None)
    rows: dict[str, tuple[int, int]] = {}
    for rank, part in enumerate(parts):
        if part is None or (part["dtype"], part["shape"]) != (first["dtype"], first["shape"]):
            raise CheckpointError(
                f"{label}: rank {rank} has {part and (part['dtype'], part['shape'])}, another "
                f"rank {(first['dtype'], first['shape'])}: all must hold rows of one table"
            )
        rows |= {file: (start, stop) for file, (start, stop) in part["rows"].items()}
    facts = TableFacts(first["dtype"], tuple(first["shape"]), rows)
    try:
        check_tiling(label, facts)
    except ValueError as error:
        raise CheckpointError(f"cannot save: {error}") from error
    return facts


def _begin(final: Path, num_bytes: int, *, step: int, ranks: Ranks) -> Path:
    """Rank 0 makes the directory to write into; all get its path."""

    def prepare() -> str:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            raise FileExistsError(errno.EEXIST, "a checkpoint of this step exists", str(final))
        _check_space(final.parent, num_bytes)
        name = f"{TEMPORARY_PREFIX}{step}-{secrets.token_hex(4)}"
        disk.make_directory(final.parent / name)
        return name

    return final.parent / str(by_first(ranks, "where a checkpoint is written", prepare))


def _write(
    path: Path, tensors: Groups, state: Mapping[str, Any], ranks: Ranks, *, block_bytes: int
) -> dict[str, FileFacts]:
    """Each rank writes its files; the facts of all."""
    _, said = together(
        ranks,
        "files of a checkpoint",
        lambda: _write_mine(path, tensors, state, ranks, block_bytes=block_bytes),
        tell=_as_json,
    )
    return {
        name: FileFacts(facts["num_bytes"], facts["block_bytes"], tuple(facts["hashes"]))
        for part in said
        for name, facts in part.items()
    }


def _write_mine(
    path: Path, tensors: Groups, state: Mapping[str, Any], ranks: Ranks, *, block_bytes: int
) -> dict[str, FileFacts]:
    content: dict[str, Iterable[bytes | memoryview]] = {}
    for group, members in tensors.items():
        mine, ours = _divide(members, ranks)
        if ranks.rank == 0:
            content[group + TENSOR_SUFFIX] = safetensors_chunks(ours)
        if mine:
            file = shard_file(group, rank=ranks.rank, size=ranks.size)
            content[file] = safetensors_chunks(mine)
    if ranks.rank == 0:
        text = json.dumps(state, indent=1, allow_nan=False) + "\n"
        content[STATE_NAME] = [text.encode()]
    return {
        name: write_file(path / name, chunks, block_bytes=block_bytes)
        for name, chunks in content.items()
    }


def _commit(temporary: Path, manifest: Manifest, final: Path) -> None:
    write_file(temporary / MANIFEST_NAME, [render(manifest)])
    disk.sync_directory(temporary)
    disk.rename(temporary, final)
    disk.sync_directory(final.parent)


def _as_json(files: Mapping[str, FileFacts]) -> dict[str, Any]:
    return {name: asdict(facts) for name, facts in files.items()}


def _check_space(directory: Path, num_bytes: int) -> None:
    free = disk.free_bytes(directory)
    if free < num_bytes * _SPARE:
        text = f"{os.strerror(errno.ENOSPC)}: {num_bytes} bytes to write, {free} free"
        raise OSError(errno.ENOSPC, text, str(directory))


def _cannot_save(path: Path, reason: str) -> CheckpointError:
    kept = newest(path.parent) if path.parent.is_dir() else None
    standing = f"the newest good checkpoint is still {kept}" if kept else "there is no earlier one"
    return CheckpointError(
        f"cannot save {path}: {reason}; {standing}; mend the cause, then resume the run"
    )

"""Which checkpoints stay: the newest few and the best one. The newest is never deleted."""

from collections.abc import Collection
from pathlib import Path

from manyface.base.errors import CheckpointError
from manyface.checkpoint import disk
from manyface.checkpoint.layout import (
    DAMAGED_PREFIX,
    DELETING_PREFIX,
    TEMPORARY_PREFIX,
    committed,
)
from manyface.checkpoint.together import describe


def retain(directory: Path, *, keep: int, protect: Collection[Path] = ()) -> list[Path]:
    """Delete all but the newest `keep` checkpoints and those in `protect`; returns the deleted.

    A checkpoint is renamed before it is deleted: a half-deleted one never looks whole.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}: the newest checkpoint always stays")
    spared = {path.name for path in protect}
    doomed = [path for path in committed(directory)[:-keep] if path.name not in spared]
    for path in doomed:
        try:
            condemned = path.with_name(DELETING_PREFIX + path.name)
            disk.rename(path, condemned)
        except OSError as error:
            raise CheckpointError(f"cannot delete an old checkpoint: {describe(error)}") from error
        disk.discard(condemned)
    return doomed


def sweep(directory: Path) -> None:
    """Remove what dead writers left; only the holder of the run's lock may call this."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name.startswith((TEMPORARY_PREFIX, DELETING_PREFIX)):
            disk.discard(path)


def set_aside(path: Path) -> Path:
    """Rename a refused checkpoint so that it is never chosen again; nothing is deleted."""
    number = 0
    while (aside := path.with_name(f"{DAMAGED_PREFIX}{path.name}-{number}")).exists():
        number += 1
    try:
        disk.rename(path, aside)
    except OSError as error:
        raise CheckpointError(
            f"cannot put a damaged checkpoint aside: {describe(error)}"
        ) from error
    return aside

"""All that a resume needs, and the order in which it is put back.

A step is a pure function of (method state, step number): batches, augmentation, sampling and
dropout all draw from (seed, position). So a checkpoint holds the method's tensors, one integer, and
figures that are only reported. No generator state, no loader state, no scheduler state.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from manyface.base.errors import CheckpointError, DamagedCheckpointError, DataError
from manyface.checkpoint import (
    Checkpoint,
    RowShard,
    StoredTable,
    by_first,
    load,
    local_rows,
    newest,
    save,
    set_aside,
)
from manyface.data import GroupedSource
from manyface.parallel import Ranks
from manyface.train.method import Method


@dataclass
class Position:
    """Where a run stands. `step` updates are done; the rest is for reports and choices."""

    step: int = 0
    evaluated_step: int = 0
    best_score: float | None = None
    images: int = 0
    train_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def take_score(self, score: float | None) -> bool:
        """Note that this step was evaluated (None: it was not); whether it is the best so far."""
        if score is None:
            return False
        self.evaluated_step = self.step
        if self.best_score is not None and score <= self.best_score:
            return False
        self.best_score = score
        return True


Facts = Mapping[str, int]


Groups = dict[str, dict[str, torch.Tensor | RowShard]]


def save_state(
    directory: Path,
    method: Method,
    position: Position,
    *,
    data: Facts = MappingProxyType({}),
    ranks: Ranks | None = None,
) -> Path:
    """Commit a checkpoint of method and position; `data` is what `resume` compares.

    All `ranks` (default: all there are) call this; see `manyface.checkpoint.save`.
    """
    tensors, state = state_of(method, position, data=data)
    return save(directory, step=position.step, tensors=tensors, state=state, ranks=ranks)


def state_of(
    method: Method, position: Position, *, data: Facts = MappingProxyType({})
) -> tuple[Groups, dict[str, Any]]:
    """The tensors of a checkpoint by group and name, not copied, and its JSON."""
    trees: dict[str, Any] = {}
    tensors: Groups = {}
    for group, tree in method.state_dict().items():
        tensors[group] = {}
        trees[group] = pack(tree, tensors[group])
    return tensors, {"position": asdict(position), "data": dict(data), "trees": trees}


def tensors_of(method: Method) -> dict[str, torch.Tensor | RowShard]:
    """Every tensor of a method's state by its path, not copied."""
    tensors: dict[str, torch.Tensor | RowShard] = {}
    pack(method.state_dict(), tensors)
    return tensors


def resume_state(
    directory: Path,
    method: Method,
    *,
    data: Facts = MappingProxyType({}),
    warn: Callable[[str], None] = lambda text: None,
    ranks: Ranks | None = None,
) -> tuple[Position, Path | None]:
    """Put the newest good checkpoint of `directory` back; a new Position if there is none.

    All `ranks` (default: all there are) call this; as many as wrote it, or not. Where the method's
    `state_dict` has a RowShard, its `load_state_dict` is given a tensor of those rows.

    0. That the config is the run's own was checked before anything was built (run.py).
    1. The newest committed checkpoint that passes its hashes; damaged ones are put aside.
    2. The data must be what it was: as many images, as many identities.
    3. The trees of the method: backbone, optimizer, head, averaged backbone.
    4. The position: step, best score, figures for reports.
    5. Nothing else: the loader starts at the batches of `position.step`, and every random draw of
       a step follows from (seed, step).
    """
    checkpoint = newest_good(directory, warn=warn, ranks=ranks)
    if checkpoint is None:
        return Position(), None
    _check_data(checkpoint, data)
    return restore(method, checkpoint), checkpoint.path


def restore(method: Method, checkpoint: Checkpoint) -> Position:
    """Put the trees of a checkpoint back into the method; where it stood."""
    method.load_state_dict(take_rows(unpack_groups(checkpoint), like=method.state_dict()))
    return read_position(checkpoint)


def _check_data(checkpoint: Checkpoint, data: Facts) -> None:
    stored = checkpoint.state.get("data", {})
    for name, value in data.items():
        if name == "fingerprint" and stored.get(name) != value:
            raise DataError(
                f"the data has changed since {checkpoint.path}: as many images and people, but "
                "other names or other people's images, so labels would mean other people; resume "
                "with the data of the run, or start a new run from its weights"
            )
        if stored.get(name) != value:
            raise DataError(
                f"the data has changed since {checkpoint.path}: {name} was {stored.get(name)}, is "
                f"{value}; resume with the data of the run, or start a new run from its weights"
            )


def identities_fingerprint(source: GroupedSource) -> int:
    """Of the names of the identities in order, and of how many images each has.

    Another one means other labels, even where the numbers of images and identities are the same.
    """
    digest = hashlib.blake2b(digest_size=6)
    for name in source.identity_names:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    _, counts = source.images_of(np.arange(source.num_identities))
    digest.update(counts.tobytes())
    return int.from_bytes(digest.digest(), "little")


def newest_good(
    directory: Path,
    *,
    warn: Callable[[str], None] = lambda text: None,
    ranks: Ranks | None = None,
) -> Checkpoint | None:
    """The newest checkpoint that can be trusted; damaged ones are reported and put aside.

    None if there is no checkpoint at all. Raises CheckpointError if all are damaged, or if one
    cannot be read for another reason: what is whole stays where it is. Rank 0 chooses, all read.
    """
    ranks = ranks or Ranks()
    damaged = 0
    while path := _choose(directory, ranks):
        try:
            return load(path, ranks=ranks)
        except DamagedCheckpointError as error:
            damaged += 1
            warn(f"{error}; the checkpoint is put aside as {_set_aside(path, ranks)}")
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {directory} is damaged ({damaged} put aside there): bring one "
            "back from a copy, or begin again with --force"
        )
    return None


def _choose(directory: Path, ranks: Ranks) -> Path | None:
    found = newest(directory) if ranks.rank == 0 else None
    name = ranks.say(found.name if found else "", "which checkpoint is newest")[0]
    return directory / name if name else None


def _set_aside(path: Path, ranks: Ranks) -> str:
    """Rank 0 renames a damaged checkpoint; the new name."""
    return str(by_first(ranks, "a damaged checkpoint", lambda: set_aside(path).name))


def read_position(checkpoint: Checkpoint) -> Position:
    """The position stored in a checkpoint."""
    stored = checkpoint.state.get("position", {})
    known = {field.name for field in fields(Position)}
    if set(stored) != known:
        raise CheckpointError(
            f"{checkpoint.path}: expected the position fields {sorted(known)}, got {sorted(stored)}"
        )
    return Position(**stored)


def unpack_groups(checkpoint: Checkpoint) -> dict[str, Any]:
    """Group -> tree, as `Method.state_dict` gave it, of the groups that were read.

    In the place of tables whose rows lie in several files are StoredTables.
    """
    trees = checkpoint.state["trees"]
    return {group: unpack(trees[group], checkpoint.group(group)) for group in checkpoint.tensors}


def take_rows(tree: Any, *, like: Any) -> Any:
    """`tree` with this rank's rows where `like` has a RowShard, whole tables elsewhere."""
    if isinstance(like, RowShard) and isinstance(tree, torch.Tensor | StoredTable):
        return local_rows(tree, like)
    if isinstance(tree, StoredTable):
        return tree.rows(0, tree.shape[0])
    if isinstance(tree, dict):
        others = like if isinstance(like, dict) else {}
        return {key: take_rows(value, like=others.get(key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        others = dict(enumerate(like)) if isinstance(like, list | tuple) else {}
        return type(tree)(take_rows(each, like=others.get(k)) for k, each in enumerate(tree))
    return tree


# A tree of dicts, lists and plain values, written as JSON. What JSON lacks is spelled as a dict
# with one key: {"$tensor": name}, {"$tuple": [...]}, or {"$items": [[key, value], ...]} for keys
# that are no strings (torch's optimizers number their parameters).


def pack(tree: Any, tensors: dict[str, torch.Tensor | RowShard], *, name: str = "") -> Any:
    """Replace the tensors of a tree by references and collect them, by path, in `tensors`."""
    if isinstance(tree, torch.Tensor | RowShard):
        tensors[name] = tree
        return {"$tensor": name}
    if isinstance(tree, dict):
        items = [(key, pack(value, tensors, name=_join(name, key))) for key, value in tree.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$items": [[key, value] for key, value in items]}
    if isinstance(tree, list | tuple):
        members = [pack(value, tensors, name=_join(name, k)) for k, value in enumerate(tree)]
        return {"$tuple": members} if isinstance(tree, tuple) else members
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"state {name!r} is a {type(tree).__name__}, which a checkpoint cannot hold")


def unpack(tree: Any, tensors: Mapping[str, torch.Tensor | StoredTable]) -> Any:
    """Inverse of `pack`."""
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {"$tensor"}:
        return tensors[tree["$tensor"]]
    if tree.keys() == {"$tuple"}:
        return tuple(unpack(value, tensors) for value in tree["$tuple"])
    if tree.keys() == {"$items"}:
        return {key: unpack(value, tensors) for key, value in tree["$items"]}
    return {key: unpack(value, tensors) for key, value in tree.items()}


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)

"""The run directory: its files, who may write in it, and whether a run may begin there.

Specification: docs/formats/run.md.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from manyface.base.errors import CheckpointError, ConfigError, ManyfaceError, WriteError
from manyface.checkpoint import newest, read_facts, replace_file
from manyface.config import Config, load_config, toml_value
from manyface.parallel import Ranks
from manyface.train.devices import auto_precision, choose_device

CONFIG, EVENTS, RESULT = "config.toml", "events.jsonl", "result.json"
EVALUATION, CHECKPOINTS, TENSORBOARD = "evaluation", "checkpoints", "tensorboard"
_OURS = (CONFIG, EVENTS, RESULT, EVALUATION, CHECKPOINTS, TENSORBOARD)

# What a resumed run may change: where and how fast it runs and what is written down, not what it
# computes. Whole sections or single keys.
_FREE = {
    "evaluation",
    "run.name",
    "run.directory",
    "run.threads",
    "run.device",
    "run.timeout_seconds",
    "data.path",
    "data.sets.path",
    "data.threads",
    "data.max_bad_share",
    "backbone.activation_checkpointing",
    "backbone.weights",
    "head.placement",
    "head.placement_folder",
    "head.weights",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.staging_gib",
    "train.compare_every",
    "train.keep",
    "train.tensorboard",
}


# What may differ between the machines of one run.
_OF_A_RANK = {
    "run.device",
    "run.threads",
    "data.path",
    "data.sets.path",
    "data.threads",
    "evaluation.path",
    "head.placement_folder",
}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The recipe at `path`; a run's own config.toml means the run in whose folder it lies.

    So a run that was copied or moved is gone on with where it is, wherever it was begun.
    """
    path = Path(path)
    if path.name != CONFIG or not _holds_progress(path.parent):
        return load_config(path, overrides)
    home = path.parent if path.parent.name not in ("", "..") else path.parent.resolve()
    place = [f"run.directory={toml_value(home.parent)}", f"run.name={toml_value(home.name)}"]
    return load_config(path, [*place, *overrides])


def _holds_progress(directory: Path) -> bool:
    return (directory / EVENTS).is_file() or newest(directory / CHECKPOINTS) is not None


def with_precision(config: Config, *, resume: bool) -> Config:
    """`config` with the precision that `auto` means: that of the run that goes on, or the device's.

    It is written down with the run, so that neither a resume nor an evaluation on another machine
    changes the arithmetic.
    """
    if config.run.precision != "auto":
        return config
    kept = config.run_directory / CONFIG
    if resume and kept.exists():
        precision = load_config(kept).run.precision
    else:
        precision = auto_precision(choose_device(config.run.device))
    run = config.run.model_copy(update={"precision": precision})
    return config.model_copy(update={"run": run})


def check_same_recipe(config: Config, ranks: Ranks) -> None:
    """Refuse ranks that were given different recipes, but for where things are on their machines.

    All ranks call this, and all are told.
    """
    mine = {
        key: value
        for key, value in _flat(config.model_dump()).items()
        if not _names_of(key) & _OF_A_RANK
    }
    texts = ranks.say(json.dumps(mine, sort_keys=True, default=str), "recipe")
    for rank, text in enumerate(texts):
        if text != texts[0]:
            first, other = json.loads(texts[0]), json.loads(text)
            keys = first.keys() | other.keys()  # one may have more sets
            key = min(key for key in keys if first.get(key) != other.get(key))
            raise ConfigError(
                f"rank {rank} has another recipe than rank 0: {key} is "
                f"{other.get(key)!r}, not {first.get(key)!r}; start all with the same one"
            )


def check_start(directory: Path, config: Config, *, resume: bool, force: bool) -> None:
    """Raise if a run may not begin, or go on, in `directory`; changes nothing."""
    exists = (directory / CONFIG).exists()
    if resume:
        if not exists:
            raise CheckpointError(
                f"there is no run to resume in {directory}: it has no {CONFIG}; start it first"
            )
        check_same(load_config(directory / CONFIG), config, directory=directory)
    elif exists and not force:
        raise ConfigError(
            f"{directory} holds a run already; resume it with --resume, "
            "overwrite it with --force, or give this one another run.name"
        )
    elif not exists and (found := [name for name in _OURS if (directory / name).exists()]):
        raise ConfigError(
            f"{directory} is no run (it has no {CONFIG}) but holds {found[0]}, which training "
            "would overwrite; give the run another run.name, or move that away"
        )


def begin(directory: Path, config: Config, *, resume: bool) -> None:
    """Delete the files of an old run, and only those, unless `resume`; write the config.

    Called when everything that can be wrong with the new run has been found right.
    """
    if not resume and (directory / CONFIG).exists():
        _clear(directory)
    write_text(directory / CONFIG, config.to_toml())


def check_same(old: Config, new: Config, *, directory: Path) -> None:
    """Refuse a resume with a config that would compute something else."""
    if changed := changes(old, new, free=_FREE):
        raise ConfigError(
            f"cannot resume {directory} with another config: {changed}; resume with "
            f"{directory / CONFIG}, or start a new run that begins with this one's backbone.weights"
        )


def judged_on(config: Config) -> str:
    """A hash of the pairs and the protocol that scores are of, wherever photos lie."""
    where_and_when = {"path", "every_epochs", "every_steps", "fars"}
    chosen = config.evaluation.model_dump_json(exclude=where_and_when)
    return hashlib.blake2b(chosen.encode(), digest_size=8).hexdigest()


def is_judged_otherwise(directory: Path, config: Config) -> bool:
    """Whether the best score of the run in `directory` is of other pairs than `config`'s."""
    facts = read_facts(directory / CHECKPOINTS, "best")
    return bool(facts) and facts.get("judged_on") != judged_on(config)


def changes(old: Config, new: Config, *, free: Collection[str]) -> str:
    """What differs beside the `free` keys and sections; empty if nothing does."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return "; ".join(
        f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not _names_of(key) & set(free)
    )


def _names_of(key: str) -> set[str]:
    """How a key may be named in a list: itself, its section, for a table of a list without its
    number."""
    return {key, key.split(".")[0], re.sub(r"\.\d+\.", ".", key)}


def write_text(path: Path, text: str) -> None:
    """Put a whole text in place."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def naming_kept(directory: Path) -> Iterator[None]:
    """A write that fails inside also says which checkpoint is kept."""
    try:
        yield
    except WriteError as error:
        raise ManyfaceError(f"{error}; {describe_kept(directory)}") from error


def describe_kept(directory: Path) -> str:
    """Which checkpoint a run that ended early can go on from, and how."""
    kept = newest(directory / CHECKPOINTS)
    if kept is None:
        return "no checkpoint had been written"
    recipe = quote(str(directory / CONFIG))
    return f"{kept} is kept, go on with: manyface train {recipe} --resume"


def _clear(directory: Path) -> None:
    for name in _OURS:
        path = directory / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot delete {path} of the old run: {error}") from error


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            numbered = {str(number): each for number, each in enumerate(value)}
            found |= _flat(numbered, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found

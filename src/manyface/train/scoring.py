"""A run evaluated again: another checkpoint, other pairs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from manyface.base.errors import CheckpointError, ConfigError
from manyface.base.threads import cpu_threads
from manyface.checkpoint import Checkpoint, committed, load, newest, read_pointer
from manyface.config import Config, load_config
from manyface.evaluate import Evaluation, make_embed_function, write_evaluation
from manyface.evaluate.embed import EmbedFunction
from manyface.parallel import ALONE, Ranks, all_or_none
from manyface.train import directory as places
from manyface.train.build_data import build_source
from manyface.train.build_model import Warn, build_backbone, build_precision
from manyface.train.build_pairs import build_evaluators
from manyface.train.devices import choose_device
from manyface.train.state import unpack_groups

# What an evaluation may change: what is verified, and how it is computed. Sections or single keys.
_FREE = {
    "evaluation",
    "run.threads",
    "run.device",
    "run.precision",
    "data.path",
    "data.people",
    "data.sets.path",
    "data.sets.people",
    "data.sets.keep",
    "data.keep",
    "data.threads",
    "data.max_bad_share",
    "data.synthetic.difficulty",
    "data.synthetic.images_per_identity",
}


def evaluate_run(
    run_directory: Path | str,
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    write: bool = True,
    warn: Warn = lambda text: None,
    ranks: Ranks = ALONE,
) -> dict[str, Evaluation]:
    """Set name -> evaluation of a run's net on the pairs of its config.

    Of several `ranks` each embeds its share, all have the scores, and the first writes.

    Args:
        checkpoint: "last", "best", or the name of a directory in `checkpoints`.
        overrides: `section.key=value`, such as `evaluation.pairs=...`, on the run's config.
        write: put the evaluation's files into the run: in `evaluation` for the last checkpoint
            with the run's own config, else in `evaluation/<checkpoint>`.
    """
    directory = Path(run_directory)
    config = read_run_config(directory, overrides)
    chosen = find_checkpoint(directory, checkpoint)
    device = choose_device(config.run.device)
    output = directory / places.EVALUATION
    if overrides or chosen != newest(directory / places.CHECKPOINTS):
        output = output / chosen.name
    found: dict[str, Evaluation] = {}
    with cpu_threads(config.run.threads):
        embed = _embed_function(config, chosen, device, warn=warn)
        source = build_source(config, warn=warn)  # only to find people who are in both
        for evaluator in build_evaluators(config, source, warn=warn):
            evaluation = found[evaluator.pairs.name] = evaluator(embed, ranks)
            with all_or_none(ranks, "evaluation files"):
                if write and ranks.rank == 0:
                    write_evaluation(output, evaluator.pairs, evaluation)
    return found


def _embed_function(
    config: Config, checkpoint: Path, device: torch.device, *, warn: Warn
) -> EmbedFunction:
    embedder = load_embedder(config, load(checkpoint, groups=("averaged", "backbone")))
    return make_embed_function(
        embedder.to(device),
        device,
        flip=config.evaluation.flip,
        autocast=build_precision(config, device, warn=warn),
    )


def load_embedder(config: Config, checkpoint: Checkpoint) -> nn.Module:
    """The net of a checkpoint that is evaluated: the averaged one where the run keeps one."""
    plain = config.backbone.model_copy(update={"weights": None})
    backbone = build_backbone(config.model_copy(update={"backbone": plain}))
    state = unpack_groups(checkpoint)
    backbone.load_state_dict(state.get("averaged", state["backbone"]))
    return backbone.eval().requires_grad_(False)


def read_run_config(directory: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a run; `overrides` may say what to verify, not what was trained."""
    path = directory / places.CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{directory} is no run: it has no {places.CONFIG}; "
            "name the folder that `manyface train` printed"
        )
    config = load_config(path, list(overrides))
    if changed := places.changes(load_config(path), config, free=_FREE):
        raise ConfigError(
            f"{changed}: {directory} is trained with the former; take it out, "
            "or train a run of its own with the latter"
        )
    return config


def find_checkpoint(directory: Path, name: str) -> Path:
    """The checkpoint that `name` (last, best, or a directory's name) stands for."""
    checkpoints = directory / places.CHECKPOINTS
    named = {path.name: path for path in committed(checkpoints)}
    if name == "best":
        path = read_pointer(checkpoints, "best")
    else:
        path = newest(checkpoints) if name == "last" else named.get(name)
    if path is None or not path.is_dir():
        known = ", ".join(["last", *named]) if named else "none; train the run first"
        raise CheckpointError(f"{directory} has no checkpoint {name!r}; there are {known}")
    return path

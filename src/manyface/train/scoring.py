"""A run evaluated again: another checkpoint, other pairs."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from manyface.base.errors import CheckpointError
from manyface.checkpoint import Checkpoint, load, newest, read_pointer
from manyface.config import Config, load_config
from manyface.evaluate import Evaluation, make_embed_function, write_evaluation
from manyface.train import directory as places
from manyface.train.build import (
    Warn,
    build_backbone,
    build_evaluators,
    build_precision,
    build_source,
)
from manyface.train.devices import choose_device, cpu_threads
from manyface.train.state import unpack_groups


def evaluate_run(
    run_directory: Path | str,
    *,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    write: bool = True,
    warn: Warn = lambda text: None,
) -> dict[str, Evaluation]:
    """Set name -> evaluation of a run's net on the pairs of its config.

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
        embedder = load_embedder(config, load(chosen, groups=("averaged", "backbone")))
        embed = make_embed_function(
            embedder.to(device),
            device,
            flip=config.evaluation.flip,
            autocast=build_precision(config, device, warn=warn),
        )
        source = build_source(config, warn=warn)  # only to find people who are in both
        for evaluator in build_evaluators(config, source, warn=warn):
            evaluation = found[evaluator.pairs.name] = evaluator(embed)
            if write:
                write_evaluation(output, evaluator.pairs, evaluation)
    return found


def load_embedder(config: Config, checkpoint: Checkpoint) -> nn.Module:
    """The net of a checkpoint that is evaluated: the averaged one where the run keeps one."""
    plain = config.backbone.model_copy(update={"weights": None})
    backbone = build_backbone(config.model_copy(update={"backbone": plain}))
    state = unpack_groups(checkpoint)
    backbone.load_state_dict(state.get("averaged", state["backbone"]))
    return backbone.eval().requires_grad_(False)


def read_run_config(directory: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a run; CheckpointError if the directory holds none."""
    path = directory / places.CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} is no run: it has no {places.CONFIG}")
    return load_config(path, list(overrides))


def find_checkpoint(directory: Path, name: str) -> Path:
    """The checkpoint that `name` (last, best, or a directory's name) stands for."""
    checkpoints = directory / places.CHECKPOINTS
    if name == "last":
        path = newest(checkpoints)
    elif name == "best":
        path = read_pointer(checkpoints, "best")
    else:
        path = checkpoints / name
    if path is None or not path.is_dir():
        raise CheckpointError(f"{directory} has no checkpoint {name!r} in {places.CHECKPOINTS}")
    return path

"""`manyface bench train`: speed of whole trainings, and the share of each part of a step."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.cli.measuring import measure_to
from manyface.cli.options import Overrides

if TYPE_CHECKING:
    from manyface.bench import TrainingJob, TrainingOptions
    from manyface.config import Config

# Without a recipe: a net and a batch that two cores take a minute for.
_SMALL = ("backbone.name=r18", "train.batch_size=64")
# Identities are those of pictures in memory, whatever data the recipe names.
_IN_MEMORY = (
    "data.path=synthetic",
    "data.people=",
    "data.keep=",
    "data.min_images_per_identity=",
    "evaluation.pairs=",
    "evaluation.path=",
)


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (.toml); left out, all defaults but r18, 64.")
    ] = None,
    overrides: Overrides = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="In place of the recipe's; may be repeated.")
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(help="full, partial, f2c or virtual; may be repeated.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=2, help="Images of a batch; may be repeated.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="So many identities, with pictures in memory.")
    ] = None,
    loader: Annotated[
        bool,
        typer.Option(help="Decode and augment beside the steps, or all batches before them."),
    ] = True,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last/--no-channels-last", help="Of the images.")
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="The net, by torch.compile.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    steps: Annotated[int, typer.Option(help="Steps measured, after some that are not.")] = 10,
    file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")
    ] = None,
) -> None:
    """Images per second of a training, and the share of each part of a step.

    Every combination of backbone, head and batch is a line, measured in a process of its own with
    the parts that `manyface train` would use; nothing is evaluated or written. Options that are
    left out are as in the recipe.

    Data are those of the recipe; where it has synthetic faces, or with --classes, JPEG pictures in
    memory, which the loader decodes and augments.

    \b
    Examples:
      manyface bench train recipes/lfw.toml --set data.path=lfw-112.tar
      manyface bench train --backbone r18 --backbone mbf --batch 32 --batch 64
      manyface bench train --head full --head partial --classes 1000000 --no-loader
    """
    from manyface.bench import TrainingOptions, compare_trainings
    from manyface.cli.train_table import print_trainings

    chosen = {
        "run.precision": precision,
        "run.channels_last": channels_last,
        "run.compile": compile_,
        "run.device": device,
        "run.threads": threads,
        "data.synthetic.num_identities": classes,
    }
    shared = [*(overrides or []), *(_IN_MEMORY if classes else ()), *_as_overrides(chosen)]
    jobs = _jobs(
        [
            _config(recipe, [*shared, *_as_overrides(each)])
            for each in _combinations(backbone=backbone, head=head, batch=batch)
        ],
        TrainingOptions(loader=loader, steps=steps),
    )
    names = [job.name for job in jobs]
    result = measure_to(
        file, names, lambda report: {"trainings": compare_trainings(jobs, report=report)}
    )
    print_trainings(result["trainings"])
    if any("error" in figures for figures in result["trainings"].values()):
        raise typer.Exit(1)


def _combinations(
    *, backbone: Sequence[str] | None, head: Sequence[str] | None, batch: Sequence[int] | None
) -> list[dict[str, object]]:
    """Key of a recipe -> value, of every combination; None leaves the recipe's."""
    keys = ("backbone.name", "head.method", "train.batch_size")
    choices = [each or [None] for each in (backbone, head, batch)]
    return [dict(zip(keys, values, strict=True)) for values in product(*choices)]


def _as_overrides(values: Mapping[str, object]) -> list[str]:
    """As --set takes them, without those that are None."""
    return [f"{key}={_as_toml(value)}" for key, value in values.items() if value is not None]


def _as_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _config(recipe: Path | None, overrides: list[str]) -> "Config":
    from manyface.config import load_config, parse_config

    if recipe is None:
        return parse_config("", [*_SMALL, *overrides])
    return load_config(recipe, overrides)


def _jobs(configs: "Sequence[Config]", options: "TrainingOptions") -> "list[TrainingJob]":
    """Jobs named after what may differ, once each."""
    from manyface.bench import TrainingJob

    named = {
        f"{each.backbone.name} {each.head.method} {each.train.batch_size}": each for each in configs
    }
    return [TrainingJob(name, config, options) for name, config in named.items()]

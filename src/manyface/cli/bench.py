"""`manyface bench`: what the parts of a training cost on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.bench_train import train
from manyface.cli.measuring import measure_to

if TYPE_CHECKING:
    from manyface.bench import Shape

_RIVAL = "arcface_torch"

app = typer.Typer(
    help="Measure what the parts of a training cost on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


app.command("train", short_help="Images per second of a training, and where its time goes.")(train)


@app.command("head", short_help="Time and memory of one step of each head.")
def head(
    classes: Annotated[int, typer.Option(help="Number of identities.")] = 100_000,
    batch: Annotated[int, typer.Option(help="Distinct images of a step.")] = 128,
    dim: Annotated[int, typer.Option(help="Length of an embedding.")] = 512,
    method: Annotated[
        list[str] | None,
        typer.Option(help="One of those above; may be repeated. Default: all that can run."),
    ] = None,
    rival: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR", help="arcface_torch=DIR: insightface's head, its code in DIR."
        ),
    ] = None,
    sample_rate: Annotated[
        float, typer.Option(help="Share of the classes that the sampling heads score.")
    ] = 0.1,
    pool_ratio: Annotated[float, typer.Option(help="Slots of F2C's pool per identity.")] = 0.1,
    steps: Annotated[int, typer.Option(help="Steps measured, after one that is not.")] = 5,
    threads: Annotated[
        int | None, typer.Option(help="Threads of torch; default: as many as it takes by itself.")
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Classes per chunk of the streamed softmax.")
    ] = None,
    momentum: Annotated[float, typer.Option(help="Of our class centers; 0 keeps none.")] = 0.9,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    files: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where partial_bf16_files may write all rows."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")
    ] = None,
) -> None:
    """Time and memory of one step of each head on the CPU, without a net, side by side.

    \b
    full     full FC, streamed: all class centers in every step
    partial  Partial FC: a sample of them
    full_bf16, partial_bf16
             the same with rows, momentum and products in bfloat16
    partial_bf16_files
             rows in files that are mapped into memory; takes --files DIR
    f2c      the dynamic class pool; a step has two passes, each half of
             the batch is probe once and gallery once, so there are
             2 x B/2 probes of B distinct images; planning the slots is
             a loader thread's work and reported apart
    and rivals, which the others are set in relation to:
    eager    dense softmax, autograd, SGD over all rows
    linear_cross_entropy
             torch's own fused last layer, on unit rows; without a margin
    partial_fc_2020
             Partial FC as first published: sampled rows and their
             momentum gathered, trained with autograd, written back
    arcface_torch, arcface_torch_bf16
             insightface's PartialFC_V2, unchanged, in fp32 and under bf16
             autocast; takes --rival arcface_torch=DIR, a checkout of it,
             whose code is run

    Each runs in a process of its own, if it fits into the memory that is available.

    \b
    Examples:
      manyface bench head --classes 1000000
      manyface bench head --method f2c --method full --pool-ratio 0.01
      manyface bench head --method partial --rival arcface_torch=insightface
    """
    import torch

    from manyface.bench import Job, Shape, compare
    from manyface.cli.head_table import print_heads
    from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE

    shape = Shape(
        classes=classes,
        batch=batch,
        dim=dim,
        sample_rate=sample_rate,
        pool_ratio=pool_ratio,
        steps=steps,
        threads=torch.get_num_threads() if threads is None else threads,
        chunk_size=DEFAULT_CHUNK_SIZE if chunk_size is None else chunk_size,
        momentum=momentum,
        dtype=dtype,
        checkout=_checkout(rival or []),
        files=None if files is None else str(files),
    )
    jobs = [Job(name, name, shape) for name in _methods(method, shape)]
    names = [job.name for job in jobs]
    result = measure_to(
        file, names, lambda report: {"shape": shape.as_dict(), **compare(jobs, report=report)}
    )
    print_heads(result)
    if any("error" in figures for figures in result["methods"].values()):
        raise typer.Exit(1)


def _checkout(rivals: Sequence[str]) -> str | None:
    """The folder of `arcface_torch=DIR`, the last one given; None without any."""
    folder = None
    for each in rivals:
        name, _, folder = each.partition("=")
        if name != _RIVAL or not folder:
            raise ConfigError(f"--rival takes {_RIVAL}=DIR, a checkout of insightface; got {each}")
    return folder


def _methods(asked: Sequence[str] | None, shape: "Shape") -> list[str]:
    """Names as asked, once each, and the rival whose checkout is named; or all that can run."""
    from manyface.bench import methods_here

    if not asked:
        return methods_here(shape)
    named = any(name.startswith(_RIVAL) for name in asked)
    added = [_RIVAL] if shape.checkout is not None and not named else []
    return [*dict.fromkeys(asked), *added]

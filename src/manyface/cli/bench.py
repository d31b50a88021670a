"""`manyface bench`: what the parts of a training cost on this machine."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyface.base.errors import ConfigError, WriteError

if TYPE_CHECKING:
    from manyface.bench import Shape

_RIVAL = "arcface_torch"

app = typer.Typer(
    help="Measure what the parts of a training cost on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _bench() -> None:
    # With it, `head` stays a word of its own even while it is the only measurement.
    pass


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

    from manyface.bench import Job, Shape
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
    )
    jobs = [Job(name, name, shape) for name in _methods(method, shape)]
    result = _compare(jobs, file)
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


def _compare(jobs: Sequence[Any], file: Path | None) -> dict[str, Any]:
    """Figures of the jobs, written to `file` too; that it can be written is tried before."""
    from manyface.bench import compare
    from manyface.observe.provenance import provenance

    if file is not None:
        _write(file, "", mode="a")
    with _progress([job.name for job in jobs]) as report:
        found = compare(jobs, report=report)
    result = {"provenance": provenance(), "shape": jobs[0].shape.as_dict(), **found}
    if file is not None:
        _write(file, json.dumps(result, indent=2) + "\n")
    return result


@contextmanager
def _progress(names: list[str]) -> Iterator[Callable[[str, str], None]]:
    """Says what goes on: a line that changes on a terminal, else a line for each stage."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)

    def line(name: str, doing: str) -> str:
        return f"[{names.index(name) + 1}/{len(names)}] {name}: {doing}"

    if not console.is_terminal:

        def say(name: str, doing: str) -> None:
            if not doing.startswith("step"):
                typer.echo(line(name, doing), err=True)

        yield say
        return
    with console.status(Text("starting")) as status:
        yield lambda name, doing: status.update(Text(line(name, doing)))


def _write(path: Path, text: str, *, mode: str = "w") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise WriteError(path, error) from error

"""`manyface evaluate`: a net judged on sets of faces, as the field does."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import warn, write_text
from manyface.cli.options import Overrides
from manyface.cli.using import BatchSize, Device, open_model

if TYPE_CHECKING:
    from manyface.evaluate.sets.base import JudgedSet, Judgement
    from manyface.evaluate.sets.naming import SetName
    from manyface.model import FaceModel

SCORES, PAGE = "scores.json", "report.html"


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A run, a checkpoint, a bundle, an ONNX file, or weights."
        ),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[SET]...", help="More sets, after --on.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="SET", help="A .bin, or KIND=PATH: see below."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help=f"For {SCORES} and {PAGE}: evaluation."),
    ] = None,
    fars: Annotated[
        str | None, typer.Option("--fars", metavar="F,F", help="Give TAR at these FARs.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Photos of a list of pairs: default beside it.")
    ] = None,
    subgroups: Annotated[
        Path | None,
        typer.Option("--subgroups", metavar="FILE", help="Within each: person, TAB, subgroup."),
    ] = None,
    by_quality: Annotated[
        bool, typer.Option("--by-quality", help="Pairs also by the length of their embeddings.")
    ] = False,
    batch_size: BatchSize = 128,
    device: Device = "auto",
    checkpoint: Annotated[
        str, typer.Option(help='Of a run: "last", "best", or the name of a folder in checkpoints.')
    ] = "last",
    overrides: Overrides = None,
) -> None:
    """Judge a net: which photos show one person, and who is it?

    Without --on a run is verified on the pairs of its recipe. Sets:

    \b
      lfw.bin          insightface's verification set
      pairs=FILE       an LFW list, or lines of path, path, 1 or 0
      all=PATH         a set of people, all images against all
      gallery=DIR      DIR/gallery, DIR/probe, perhaps DIR/distractors
      ijbc=DIR         IJB-C (ijbb=DIR: IJB-B), with meta/ and loose_crop/

    \b
    Examples:
      manyface evaluate runs/lfw
      manyface evaluate runs/lfw --on lfw.bin cfp_fp.bin agedb_30.bin
      manyface evaluate model.onnx --on pairs=pairs.txt --images lfw.tar
      manyface evaluate runs/lfw --set evaluation.pairs=pairsDevTest.txt
    """
    named = [*(on or []), *(more or [])]
    if not named:
        _verify_run(model, checkpoint, overrides or [])
        return
    if overrides:
        raise ConfigError(
            "--set changes the recipe of a run, and --on does not use that; leave it out"
        )
    rates = None if fars is None else _rates(fars)
    how = {"fars": rates, "images": images, "subgroups": subgroups, "by_quality": by_quality}
    _judge(model, named, how, output, batch_size, device, checkpoint)


def _verify_run(run: Path, checkpoint: str, overrides: Sequence[str]) -> None:
    """On the pairs that the run's recipe names."""
    from manyface.cli.tables import print_scores
    from manyface.train.scoring import evaluate_run

    found = evaluate_run(run, checkpoint=checkpoint, overrides=overrides, warn=warn)
    if not found:
        raise ConfigError(
            f"{run} names no pairs to verify: name a set with --on, or give a list with "
            "--set evaluation.pairs=pairs.txt, or --set evaluation.pairs=synthetic"
        )
    for name, evaluation in found.items():
        print_scores(name, evaluation.scores)
        for note in evaluation.notes:
            typer.echo(f"note: {note}")


def _judge(
    path: Path,
    named: list[str],
    how: dict[str, Any],
    output: Path | None,
    batch_size: int,
    device: str,
    checkpoint: str,
) -> None:
    """On sets that the command line names, on all ranks; the first writes and prints."""
    from manyface.cli.data.shared import Displays
    from manyface.evaluate.sets.base import evaluate_set
    from manyface.evaluate.sets.naming import parse_set
    from manyface.parallel.start import joined

    names = [parse_set(text) for text in named]
    model = open_model(path, device=device, checkpoint=checkpoint)
    sets = _opened(names, model, how)  # a wrong one is said before the work
    found = []
    with joined(model.device) as ranks:
        for judged in sets:
            with Displays(judged.name) as show:
                found.append(
                    evaluate_set(
                        judged, model.features, batch_size=batch_size, ranks=ranks, show=show
                    )
                )
        if ranks.rank == 0:
            _tell(model, found, output or _beside(path))


def _opened(names: "list[SetName]", model: "FaceModel", how: dict[str, Any]) -> "list[JudgedSet]":
    from manyface.evaluate.sets.opening import SetOptions, open_set

    options = SetOptions(
        image_size=model.image_size,
        warn=warn,
        device=str(model.device),
        flip=model.preprocessing.flip,
        **how,
    )
    return [open_set(name, options) for name in names]


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 1 for rate in rates):
        raise ConfigError(f"--fars are shares above 0, as 1e-3,1e-4; got {text!r}")
    return rates


def _beside(model: Path) -> Path:
    return model / "evaluation" if model.is_dir() else Path("evaluation")


def _tell(model: "FaceModel", found: "list[Judgement]", output: Path) -> None:
    from manyface.cli.tables import print_results
    from manyface.report.document import write_page
    from manyface.report.judged import render_judgements

    results = [result for each in found for result in each.results]
    print_results(results)
    about = _about(model)
    content = {"model": about, "sets": [result.as_dict() for result in results]}
    write_text(output / SCORES, json.dumps(content, indent=2) + "\n")
    write_page(render_judgements(about, found), output / PAGE)
    typer.echo(f"Wrote {output / SCORES} and {output / PAGE}")


def _about(model: "FaceModel") -> dict[str, Any]:
    import manyface

    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "embedding size": str(model.embedding_size),
        "images": f"{model.image_size} x {model.image_size}, {model.preprocessing.colour}"
        + (", with mirror image" if model.preprocessing.flip else ""),
        "measured by": f"manyface {manyface.__version__}",
    }

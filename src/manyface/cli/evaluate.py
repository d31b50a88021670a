"""`manyface evaluate`: a net judged on sets of faces, as the field does."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import warn
from manyface.cli.options import Overrides
from manyface.cli.using import A_DAY, BatchSize, Device, embed_function, open_model

if TYPE_CHECKING:
    from manyface.evaluate.embed import EmbedFunction
    from manyface.evaluate.kept_features import Kept
    from manyface.evaluate.sets.base import JudgedSet, Judgement
    from manyface.evaluate.sets.naming import SetName
    from manyface.evaluate.sets.opening import SetOptions
    from manyface.model import FaceModel
    from manyface.parallel import Ranks

SCORES, PAGE, FEATURES = "scores.json", "report.html", ".features"


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
        typer.Option("--on", metavar="SET", help="A .bin, or KIND=PATH: see above."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help=f"For {SCORES} and {PAGE}."),
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
    half: Annotated[
        bool, typer.Option("--half", help="Compute in half precision where that is quicker.")
    ] = False,
    batch_size: BatchSize = 128,
    device: Device = "auto",
    checkpoint: Annotated[
        str, typer.Option(help='Of a run: "last", "best", or the name of a folder in checkpoints.')
    ] = "last",
    overrides: Overrides = None,
) -> None:
    """Judge a net: which photos show one person, and who is it?

    Without --on a run is verified on the pairs of its recipe. If it is stopped, the same command
    goes on. Under torchrun each rank embeds its share. Sets:

    \b
      lfw.bin          insightface's verification set
      pairs=FILE       an LFW list, or lines of path, path, 1 or 0
      all=PATH         a set of people, all images against all
      gallery=DIR      DIR/gallery, DIR/probe, perhaps DIR/distractors
      megaface=DIR     DIR/probe, people, and DIR/distractors, anybody else
      tinyface=DIR     TinyFace, its photos aligned
      ijbc=DIR         IJB-C (ijbb=DIR: IJB-B), with meta/ and loose_crop/

    \b
    Examples:
      manyface evaluate runs/lfw
      manyface evaluate runs/lfw --on lfw.bin cfp_fp.bin agedb_30.bin
      manyface evaluate model.onnx --on pairs=pairs.txt --images lfw.tar
      manyface evaluate runs/lfw --set evaluation.pairs=pairsDevTest.txt
    """
    named = [*(on or []), *(more or [])]
    rates = None if fars is None else _rates(fars)
    how = {"fars": rates, "images": images, "subgroups": subgroups, "by_quality": by_quality}
    if not named:
        _refuse_unused({**how, "output": output, "half": half, "device": device != "auto"})
        _verify_run(model, checkpoint, overrides or [])
        return
    if overrides:
        raise ConfigError(
            "--set changes the recipe of a run, and --on does not use that; leave it out"
        )
    from manyface.evaluate.sets.naming import parse_sets

    names = parse_sets(named)  # a wrong one is said before the work
    net = open_model(model, device=device, checkpoint=checkpoint)
    _judge(net, names, how, output or _beside(model, checkpoint), batch_size=batch_size, half=half)


def _refuse_unused(options: dict[str, Any]) -> None:
    """Options that mean nothing where the recipe says what is verified."""
    if given := [name for name, value in options.items() if value]:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} is for sets that --on names; without it, the recipe "
            "says how a run is verified: change that with --set evaluation..."
        )


def _verify_run(run: Path, checkpoint: str, overrides: Sequence[str]) -> None:
    """On the pairs that the run's recipe names."""
    from manyface.cli.tables import print_scores
    from manyface.parallel.start import joined
    from manyface.train.devices import choose_device
    from manyface.train.scoring import evaluate_run, read_run_config

    device = choose_device(read_run_config(run, overrides).run.device)
    with joined(device, seconds=A_DAY) as ranks:
        found = evaluate_run(
            run, checkpoint=checkpoint, overrides=overrides, warn=_warn_once, ranks=ranks
        )
    if not found:
        raise ConfigError(
            f"{run} names no pairs to verify: name a set with --on, or give a list with "
            "--set evaluation.pairs=pairs.txt, or --set evaluation.pairs=synthetic"
        )
    for name, evaluation in found.items() if ranks.rank == 0 else ():
        print_scores(name, evaluation.scores)
        for note in evaluation.notes:
            typer.echo(f"note: {note}")


def _judge(
    model: "FaceModel",
    names: "list[SetName]",
    how: dict[str, Any],
    output: Path,
    *,
    batch_size: int,
    half: bool,
) -> None:
    """On sets that the command line names; all ranks embed, the first judges, writes and prints."""
    from manyface.base.threads import cpu_threads
    from manyface.evaluate.kept_features import Kept
    from manyface.evaluate.sets.opening import check_used, open_set
    from manyface.parallel import all_or_none, joined
    from manyface.train.devices import threads_here

    options = _options(model, how)
    check_used(names, options)
    sets = [open_set(name, options) for name in names]
    embed = embed_function(model, half=half, unit=False)
    job = {"model": model.fingerprint, "half": str(half)}
    places = [output / FEATURES / quote(name.name, safe="") for name in names]
    with (
        joined(model.device, seconds=A_DAY) as ranks,
        cpu_threads(threads_here()),
        ExitStack() as features,
    ):
        with all_or_none(ranks, "places of features"):
            if ranks.rank == 0:
                features.enter_context(_kept(places))
        found = [
            _judgement(judged, embed, Kept(place, job), batch_size, ranks)
            for judged, place in zip(sets, places, strict=True)
        ]
        if ranks.rank == 0:
            _tell(model, names, found, output)


@contextmanager
def _kept(places: Sequence[Path]) -> Iterator[None]:
    """No other command uses the folders inside; if all goes well, they are not needed any more."""
    from manyface.base.files import held
    from manyface.evaluate.part_files import remove_parts

    with ExitStack() as locks:
        for place in places:
            locks.enter_context(held(place))
        yield
        for place in places:
            remove_parts(place)
    with suppress(OSError):  # those of other commands are there
        places[0].parent.rmdir()


def _judgement(
    judged: "JudgedSet", embed: "EmbedFunction", kept: "Kept", batch_size: int, ranks: "Ranks"
) -> "Judgement":
    from manyface.base.progress import no_progress
    from manyface.cli.data.shared import Displays
    from manyface.evaluate.sets.base import evaluate_set

    with Displays(judged.name) as show:
        return evaluate_set(
            judged,
            embed,
            batch_size=batch_size,
            ranks=ranks,
            show=show if ranks.rank == 0 else lambda name: no_progress,
            kept=kept,
        )


def _options(model: "FaceModel", how: dict[str, Any]) -> "SetOptions":
    from manyface.evaluate.sets.opening import SetOptions

    return SetOptions(
        image_size=model.image_size,
        warn=_warn_once,
        device=str(model.device),
        flip=model.preprocessing.flip,
        **how,
    )


def _warn_once(text: str) -> None:
    """Not by every rank."""
    from manyface.parallel.start import is_first_rank

    if is_first_rank():
        warn(text)


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 1 for rate in rates):
        raise ConfigError(f"--fars are shares above 0, as 1e-3,1e-4; got {text!r}")
    return rates


def _beside(model: Path, checkpoint: str) -> Path:
    """In a run, never in one of its checkpoints, which what does not belong to it would damage."""
    from manyface.train.directory import CHECKPOINTS, CONFIG, EVALUATION

    is_checkpoint = model.resolve().parent.name == CHECKPOINTS
    run = model.resolve().parents[1] if is_checkpoint else model
    if not (run / CONFIG).is_file():
        return Path(EVALUATION)
    named = model.resolve().name if is_checkpoint else "" if checkpoint == "last" else checkpoint
    return run / EVALUATION / named


def _tell(
    model: "FaceModel", names: "list[SetName]", found: "list[Judgement]", output: Path
) -> None:
    """The table first: where nothing can be written, it is still seen."""
    from manyface.cli.tables import print_results
    from manyface.report.document import write_page
    from manyface.report.judged import render_judgements

    print_results([result for each in found for result in each.results])
    about = _about(model)
    sets = [
        {"path": str(name.path), **result.as_dict()}
        for name, each in zip(names, found, strict=True)
        for result in each.results
    ]
    write_page(json.dumps({"model": about, "sets": sets}, indent=2) + "\n", output / SCORES)
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

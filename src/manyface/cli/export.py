"""`manyface export`: a model as one file that other programs, and other people, can use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import shown, warn
from manyface.cli.options import Overrides

if TYPE_CHECKING:
    from torch import Tensor

    from manyface.model import FaceModel, Threshold
    from manyface.model.export import Exported


def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A run, a checkpoint of one, a bundle, or published weights."
        ),
    ],
    form: Annotated[str, typer.Option("--format", help="safetensors (a bundle) or onnx.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Left out: NAME.FORMAT, here."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help='Of a run: "last", "best", or the name of a folder in checkpoints.')
    ] = "last",
    far: Annotated[
        float | None,
        typer.Option(
            help="False accept rate of the threshold; left out, 1e-3 if the pairs can show it."
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="Pairs that the threshold is measured on: as evaluation.pairs of a run; of other "
            "models a .bin. Left out: those of the run.",
        ),
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Faces that the file is compared with the model on; left out, the run's data.",
        ),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Of onnx: (x - mean) / std inside of the graph.")
    ] = False,
    license: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What may be done with the weights.")
    ] = None,
    colour: Annotated[
        str | None, typer.Option(help="RGB or BGR, of published weights that take another order.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write a model with all that using it takes: net, preprocessing, threshold, provenance.

    The file is compared with the trained net on real faces before it gets its name; one that
    computes something else is not left there. It holds no pickle and no code.

    \b
    Examples:
      manyface export runs/lfw --format safetensors
      manyface export runs/lfw --format onnx -o lfw.onnx --checkpoint best --far 1e-3
      manyface export backbone.pth --format onnx --faces /data/lfw.tar --pairs lfw.bin
    """
    from manyface.cli.data.options import choice
    from manyface.data.records.naming import safe_name
    from manyface.data.tools.formats import checked_target
    from manyface.model import load
    from manyface.model.export import FORMS
    from manyface.model.export import export as write
    from manyface.model.preprocessing import COLOURS

    chosen = choice("--format", form, FORMS)
    order = None if colour is None else choice("--colour", colour, COLOURS)
    opened = load(model, device="cpu", checkpoint=checkpoint, colour=order)
    shown = _faces(model, checkpoint, faces, opened)
    threshold = _threshold(model, checkpoint, opened, far, pairs, overrides or [])
    # A name comes with the file, from wherever that came.
    named = output or Path(f"{safe_name(opened.name)}.{chosen}")
    target = checked_target(named.expanduser(), [])
    if target.exists() and target.samefile(model.expanduser()):
        raise ConfigError(f"{target} is what is exported: choose another name with --output")
    done = write(
        opened,
        target,
        chosen,
        shown,
        threshold=threshold,
        license=license,
        normalise=normalise,
    )
    _print(done, chosen, inside=normalise)


def _faces(model: Path, checkpoint: str, faces: Path | None, opened: "FaceModel") -> "Tensor":
    from manyface.model.measured import faces_at, faces_of_run, synthetic_faces
    from manyface.model.runs import find_run, is_run

    if faces is not None:
        return faces_at(faces, opened.image_size)
    if is_run(model):
        return faces_of_run(find_run(model, checkpoint)[0], warn=warn)
    warn("compared on synthetic faces: give real ones with --faces")
    return synthetic_faces(opened.image_size)


def _threshold(
    model: Path,
    checkpoint: str,
    opened: "FaceModel",
    far: float | None,
    pairs: str | None,
    overrides: list[str],
) -> "Threshold | None":
    """Of the wished FAR; where none is wished and the pairs cannot show the usual one, none."""
    from manyface.base.errors import DataError
    from manyface.config import toml_value
    from manyface.model.measured import threshold_of_run, threshold_on_bin
    from manyface.model.runs import find_run, is_run

    try:
        if is_run(model):
            directory, chosen = find_run(model, checkpoint)
            named = [f"evaluation.pairs={toml_value(pairs)}"] if pairs is not None else []
            return threshold_of_run(
                directory, chosen, far, overrides=[*overrides, *named], warn=warn
            )
        if overrides:
            raise ConfigError("--set is for runs: other models have no recipe")
        if pairs is not None:
            return threshold_on_bin(opened, Path(pairs), far)
    except DataError as error:
        if far is not None or pairs is not None:
            raise
        warn(f"the file states no threshold: {error}")
    stated = None if opened.threshold is None else opened.threshold.far
    if far not in (None, stated):
        raise ConfigError("--far needs pairs to measure on: name them with --pairs")
    return None


def _print(done: "Exported", form: str, *, inside: bool) -> None:
    from manyface.cli.console import format_bytes

    card = done.card
    feed, net = card.preprocessing, card.architecture
    typer.echo(f"Wrote {done.path}, {format_bytes(done.num_bytes)}")
    typer.echo(f"  net            {net.name}, {net.embedding_size} values")
    if form == "onnx":
        from manyface.model.onnx_write import INPUT, OPSET, OUTPUT

        size = feed.image_size
        typer.echo(
            f"  graph          opset {OPSET}, {INPUT!r} [batch, 3, {size}, {size}] -> {OUTPUT!r} "
            f"[batch, {net.embedding_size}], any batch"
        )
    typer.echo(
        f"  images         {feed.image_size} x {feed.image_size}, {feed.colour}, mean "
        f"{feed.mean[0]:g}, std {feed.std[0]:g}{' (in the graph)' if inside else ''}, "
        f"{feed.template} template" + (", mirror image added" if feed.flip else "")
    )
    typer.echo(f"  threshold      {_said(card.threshold)}")
    said = "not stated: give it with --license" if card.license is None else shown(card.license)
    typer.echo(f"  license        {said}")
    typer.echo(f"  fingerprint    {card.fingerprint}")
    typer.echo(
        f"  parity         cosine with the trained net at least {done.least_cosine:.7f} on "
        f"{done.num_faces} faces, in batches of 1, 3 and {done.num_faces}"
    )


def _said(threshold: "Threshold | None") -> str:
    if threshold is None:
        return "none: no pairs were measured"
    return (
        f"cosine {threshold.value:.4f} at FAR {threshold.far:g} (TAR {threshold.tar:.4f}), on "
        f"{shown(threshold.measured_on)}: {threshold.num_same} same and {threshold.num_different} "
        "different pairs"
    )

"""`manyface data align`: photos -> aligned faces, by landmarks of a file or of a detector."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError

if TYPE_CHECKING:
    from manyface.data.align import FindPoints
    from manyface.data.detect import Face


def align(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Photos: anything that data.path can be.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Gets one folder for each person.")],
    landmarks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Lines 'name x1 y1 ... x5 y5', by comma, TAB or space."),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help="Finds the faces: uniface, or your own as package.module:function."),
    ] = None,
    face: Annotated[
        str, typer.Option(help="Of several that are found: the largest or the most central one.")
    ] = "largest",
    size: Annotated[int, typer.Option(help="Pixels a side: a multiple of 112 or 128.")] = 112,
    form: Annotated[str, typer.Option("--format", help="jpg (quality 95, 4:4:4) or png.")] = "jpg",
    threads: Annotated[
        int, typer.Option(min=0, help="0: one per core. A detector is called by one at a time.")
    ] = 0,
) -> None:
    """Bring faces to the place where face nets expect them: two eyes, nose, corners of the mouth.

    Photos without landmarks are left out and listed in DST/left_out.tsv. What is there already is
    not made again, so the same command goes on after a stop.

    \b
    Examples:
      manyface data align photos faces --landmarks photos/landmarks.csv
      manyface data align photos.tar faces --detector uniface --size 224 --format png
    """
    from manyface.base.threads import usable_cores
    from manyface.cli.data.options import choice
    from manyface.cli.data.shared import open_with_progress
    from manyface.data.align import template
    from manyface.data.align_set import FORMS, LEFT_OUT, How, align_set
    from manyface.data.detect import FACES
    from manyface.data.tools.formats import checked_target
    from manyface.observe.counting import Counting

    template(size)  # complains before anything is read
    which = choice("--face", face, FACES)
    how = How(size, choice("--format", form, FORMS), str(landmarks or f"{detector} ({which})"))
    target = checked_target(target, [source])
    find = _finder(landmarks, detector, which)
    records = open_with_progress(source)
    with Counting("aligning", unit="photos") as progress:
        done = align_set(
            records, target, find, how, threads=threads or usable_cores(), progress=progress
        )
    there = f", {done.present} were there already" if done.present else ""
    typer.echo(f"{done.written} faces written to {target}{there}")
    if done.left_out:
        name, reason = done.left_out[0]
        typer.echo(
            f"{len(done.left_out)} photos are left out, see {target / LEFT_OUT} "
            f"(first: {name}: {reason})"
        )


def _finder(landmarks: Path | None, detector: str | None, face: "Face") -> "FindPoints":
    from manyface.data.detect import detected, load_detector
    from manyface.data.landmarks import looked_up, read_landmarks

    if landmarks is not None and detector is None:
        return looked_up(read_landmarks(landmarks))
    if detector is not None and landmarks is None:
        return detected(load_detector(detector), face=face)
    raise ConfigError("give --landmarks FILE or --detector NAME, one of the two")

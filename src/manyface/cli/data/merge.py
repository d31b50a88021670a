"""`manyface data merge`: several sets as one, people who are the same joined."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError, DataError
from manyface.cli.console import format_bytes, warn
from manyface.cli.data.shared import (
    Checkpoint,
    Displays,
    Threads,
    embed_all,
    open_with_progress,
    write_rows,
)

if TYPE_CHECKING:
    from manyface.data.records import Records
    from manyface.data.records.merged import Same


def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="The sets.")],
    destination: Annotated[
        Path,
        typer.Option("--out", metavar="DST", help="A new path; its suffix says the format."),
    ],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="As in `manyface data convert`.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="RUN", help="A run, whose net finds people of two sets."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Cosine from which two people are one. Default: measured."),
    ] = None,
    names: Annotated[
        bool, typer.Option("--same-names", help="People of one name in two sets are one.")
    ] = False,
    joins: Annotated[
        Path | None,
        typer.Option(
            "--joins", metavar="FILE.tsv", help="Pairs of people who are one, by `data clean`."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.tsv", help="Write who was joined with whom."),
    ] = None,
    checkpoint: Checkpoint = "last",
    threads: Threads = 0,
) -> None:
    """Write several sets as one; the sets stay as they are.

    Labels run on from set to set. Without an option nobody is joined, and people of one name are
    told apart by the number of their set: "Ann (1)", "Ann (2)".

    \b
    Examples:
      manyface data merge faces/ more.rec --out all.rec
      manyface data merge faces/ more.rec --out all.rec --model runs/lfw --report joined.tsv
      manyface data merge faces/ --joins joins.tsv --out joined/
    """
    from manyface.data.records.merged import MergedRecords, same_names
    from manyface.data.tools.convert import ConvertOptions
    from manyface.data.tools.convert import convert as write
    from manyface.data.tools.formats import check_outputs, checked_target, format_for, path_for
    from manyface.data.tools.measures import total_bytes

    if len(sources) < 2 and joins is None:
        raise ConfigError("one set alone is merged with nothing; give two, or --joins")
    if len({source.resolve() for source in sources}) < len(sources):
        raise ConfigError("a set is named twice: all its photos would be there twice; name it once")
    form = format_for(destination, to)
    path = checked_target(path_for(destination, form), sources)
    check_outputs([*sources, *([joins] if joins else [])], streamed=[report])
    sets = [open_with_progress(source) for source in sources]
    same = [*(same_names(sets) if names else []), *(_read_joins(joins, sets) if joins else [])]
    if model is not None:
        same += _seen(sets, model, checkpoint, threshold, threads)
    merged = MergedRecords(sets, same=same)
    if report is not None:
        write_rows(report, _lines(sets, same))
    with Displays(path.name) as show:
        write(merged, path, ConvertOptions(form=form, threads=threads), show=show, warn=warn)
    typer.echo(
        f"Wrote {path}: {len(merged):,} images of {len(merged.identity_names):,} people "
        f"({merged.num_joined:,} joined), {format_bytes(total_bytes(merged))}, "
        "read again and equal"
    )


def _seen(
    sets: list["Records"], model: Path, checkpoint: str, threshold: float | None, threads: int
) -> "Same":
    """People of every two sets whom the net takes for one."""
    from manyface.curate import find_shared

    embedded = [
        images for _, images in embed_all(sets, model, checkpoint=checkpoint, threads=threads)
    ]
    same: Same = []
    for number, one in enumerate(embedded):
        for other in range(number + 1, len(embedded)):
            found = find_shared(one, embedded[other], threshold=threshold)
            pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
            same += [((number, first), (other, second)) for first, second in pairs]
            typer.echo(
                f"{len(found.first):,} people of {sets[number].path.name} are in "
                f"{sets[other].path.name} (cosine {found.threshold:.3f})"
            )
    return same


def _read_joins(path: Path, sets: list["Records"]) -> "Same":
    """Pairs of names, between tabs; each must be somebody in one of the sets."""
    from manyface.data.records.base import read_text_file
    from manyface.data.records.kept import unescaped

    place = {
        name: (number, person)
        for number, each in reversed(list(enumerate(sets)))
        for person, name in enumerate(each.identity_names)
    }
    same: Same = []
    for number, line in enumerate(read_text_file(path).split("\n"), start=1):
        if not line.strip():
            continue
        one, other, *_ = map(unescaped, [*line.rstrip("\r").split("\t"), ""])
        if one not in place or other not in place:
            unknown = other if one in place else one
            raise DataError(
                f"{path}, line {number}: there is nobody called {unknown!r}; expected the names "
                "of two people of the sets, with a TAB between them"
            )
        same.append((place[one], place[other]))
    return same


def _lines(sets: list["Records"], same: "Same") -> list[list[str]]:
    return [
        [
            *(str(sets[a].path), sets[a].identity_names[one]),
            *(str(sets[b].path), sets[b].identity_names[other]),
        ]
        for (a, one), (b, other) in same
    ]

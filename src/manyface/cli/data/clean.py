"""`manyface data clean`: wrong labels and split identities, found with a trained net."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.cli.console import make_console
from manyface.cli.data.shared import (
    FOUND,
    Checkpoint,
    DataPath,
    Displays,
    Model,
    Threads,
    embed_all,
    open_with_progress,
    write_kept,
    write_rows,
)

if TYPE_CHECKING:
    from manyface.curate import Conflicts
    from manyface.data.records import Records


def clean(
    path: DataPath,
    model: Model,
    page: Annotated[
        Path | None,
        typer.Option("--page", metavar="FILE.html", help="Write a page that shows the cases."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="FILE",
            help="Write a keep-list for data.keep, without wrong labels and strangers.",
        ),
    ] = None,
    joins: Annotated[
        Path | None,
        typer.Option(
            "--joins",
            metavar="FILE.tsv",
            help="Write the pairs of labels that are one person, for `data merge --joins`.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.tsv", help="Write every case.")
    ] = None,
    same_person: Annotated[
        float | None,
        typer.Option(help="Cosine from which two labels are one person. Default: measured."),
    ] = None,
    belongs: Annotated[
        float | None,
        typer.Option(help="Cosine from which an image belongs to a person. Default: measured."),
    ] = None,
    checkpoint: Checkpoint = "last",
    threads: Threads = 0,
) -> None:
    """Look for images under the wrong person and people under two labels. Changes nothing.

    Exit code 0: none found; 3: there are some.

    \b
    Examples:
      manyface data clean faces/ --model runs/lfw --page conflicts.html
      manyface data clean train.rec --model runs/lfw --keep keep.txt --joins joins.tsv
    """
    from manyface.curate import find_conflicts
    from manyface.data.tools.formats import check_outputs
    from manyface.report.conflicts import render_conflicts
    from manyface.report.document import write_page

    check_outputs([path], whole=[page, keep], streamed=[joins, report])
    records = open_with_progress(path)
    [(source, images)] = embed_all([records], model, checkpoint=checkpoint, threads=threads)
    with Displays(path.name) as show:
        found = find_conflicts(images, same_person=same_person, belongs=belongs, show=show)
    _print(found)
    if page is not None:
        write_page(render_conflicts(source, found, records.describe), page)
        typer.echo(f"Wrote {page}")
    if report is not None:
        write_rows(report, _lines(records, found))
    if joins is not None:
        write_rows(joins, _split(records, found))
    if keep is not None:
        dropped = [*found.wrong_labels.records.tolist(), *found.strangers.records.tolist()]
        write_kept(keep, records, dropped)
    if _count(found):
        raise typer.Exit(FOUND)


def _count(found: "Conflicts") -> int:
    cases = (found.wrong_labels.records, found.strangers.records, found.split.people)
    return sum(map(len, cases))


def _print(found: "Conflicts") -> None:
    console, limits = make_console(), found.thresholds
    for name, cases, limit in (
        ("one person under two labels", len(found.split.people), limits.same_person),
        ("images under the wrong label", len(found.wrong_labels.records), limits.belongs),
        ("images like nobody", len(found.strangers.records), limits.by_chance),
    ):
        console.print(f"{cases:>9}  {name} (cosine {limit:.3f})")


def _lines(records: "Records", found: "Conflicts") -> list[tuple[str, ...]]:
    """Kind, where, whose it is now, whose it looks like, cosines."""
    from manyface.data.records import labels_of

    names, wrong, strange = records.identity_names, found.wrong_labels, found.strangers
    lines: list[tuple[str, ...]] = [("kind", "where", "identity", "other", "to_own", "to_other")]
    lines += [
        ("split", "", one, other, "", cosine) for one, other, cosine in _split(records, found)
    ]
    owners = labels_of(records.first_images, wrong.records).tolist()
    lines += [
        ("wrong", records.describe(record), names[own], names[other], f"{here:.4f}", f"{there:.4f}")
        for record, own, other, here, there in zip(
            wrong.records.tolist(),
            owners,
            wrong.people.tolist(),
            wrong.to_own.tolist(),
            wrong.to_other.tolist(),
            strict=True,
        )
    ]
    owners = labels_of(records.first_images, strange.records).tolist()
    lines += [
        ("stranger", records.describe(record), names[own], "", f"{here:.4f}", "")
        for record, own, here in zip(
            strange.records.tolist(), owners, strange.to_own.tolist(), strict=True
        )
    ]
    return lines


def _split(records: "Records", found: "Conflicts") -> list[tuple[str, str, str]]:
    """Names and cosine of each two labels that are one person."""
    names = records.identity_names
    return [
        (names[one], names[other], f"{cosine:.4f}")
        for (one, other), cosine in zip(
            found.split.people.tolist(), found.split.cosines.tolist(), strict=True
        )
    ]

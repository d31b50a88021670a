"""`manyface data clean`: wrong labels and split identities, found with a trained net.

Of a run instead of a set, split identities alone: those whose class centers are alike.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import make_console, warn
from manyface.cli.data.shared import (
    FOUND,
    Checkpoint,
    Displays,
    Threads,
    embed_all,
    open_with_progress,
    write_kept,
    write_rows,
)

if TYPE_CHECKING:
    from manyface.curate import AlikeCenters, Conflicts, SplitIdentities
    from manyface.data.records import Records
    from manyface.data.source import GroupedSource

_HEAD = ("kind", "where", "identity", "other", "to_own", "to_other")


def clean(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A set of people in any format; or a run: its class centers."
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL", help="A run, a bundle, ...: the net that looks."),
    ] = None,
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

    Of a run no image is looked at: people are compared whose class centers its head has learned,
    and those that are alike are listed. Exit code 0: none found; 3: there are some.

    \b
    Examples:
      manyface data clean faces/ --model runs/lfw --page conflicts.html
      manyface data clean runs/lfw --page conflicts.html --joins joins.tsv
      manyface data clean train.rec --model runs/lfw --keep keep.txt --joins joins.tsv
    """
    if (path / "config.toml").is_file():
        _refuse_for_runs(path, {"--model": model, "--keep": keep, "--belongs": belongs})
        _clean_run(path, page, joins, report, limit=same_person, checkpoint=checkpoint)
        return
    if model is None:
        raise ConfigError(f"--model is missing: the net that looks at the images of {path}")
    from manyface.curate import find_conflicts
    from manyface.data.tools.formats import check_outputs
    from manyface.report.conflicts import render_conflicts

    check_outputs([path], whole=[page, keep], streamed=[joins, report])
    records = open_with_progress(path)
    [(source, images)] = embed_all([records], model, checkpoint=checkpoint, threads=threads)
    with Displays(path.name) as show:
        found = find_conflicts(images, same_person=same_person, belongs=belongs, show=show)
    _print(found)
    if page is not None:
        _write_page(render_conflicts(source, found, records.describe), page)
    _write_lists(records.identity_names, found.split, joins, report, _lines(records, found))
    if keep is not None:
        dropped = [*found.wrong_labels.records.tolist(), *found.strangers.records.tolist()]
        write_kept(keep, records, dropped)
    if _count(found):
        raise typer.Exit(FOUND)


def _refuse_for_runs(run: Path, options: Mapping[str, object]) -> None:
    if given := [name for name, value in options.items() if value is not None]:
        raise ConfigError(
            f"{run} is a run, whose class centers are compared: no image is looked at; leave out "
            f"{given[0]}, or give the path of the set"
        )


def _write_page(text: str, page: Path) -> None:
    from manyface.report.document import write_page

    write_page(text, page)
    typer.echo(f"Wrote {page}")


def _write_lists(
    names: Sequence[str],
    split: "SplitIdentities",
    joins: Path | None,
    report: Path | None,
    others: Sequence[tuple[str, ...]] = (),
) -> None:
    """The pairs of labels that are one person, and every case: these and `others`."""
    pairs = _split(names, split)
    if report is not None:
        rows = [("split", "", one, other, "", cosine) for one, other, cosine in pairs]
        write_rows(report, [_HEAD, *rows, *others])
    if joins is not None:
        write_rows(joins, pairs)


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
    """Of images: kind, where, whose it is now, whose it looks like, cosines."""
    from manyface.data.records import labels_of

    names, wrong, strange = records.identity_names, found.wrong_labels, found.strangers
    lines: list[tuple[str, ...]] = []
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


def _split(names: Sequence[str], found: "SplitIdentities") -> list[tuple[str, str, str]]:
    """Names and cosine of each two labels that are one person."""
    return [
        (names[one], names[other], f"{cosine:.4f}")
        for (one, other), cosine in zip(found.people.tolist(), found.cosines.tolist(), strict=True)
    ]


def _clean_run(
    run: Path,
    page: Path | None,
    joins: Path | None,
    report: Path | None,
    *,
    limit: float | None,
    checkpoint: str,
) -> None:
    """Labels of a run whose class centers are alike, in the words of the run's own data."""
    from manyface.data.tools.formats import check_outputs
    from manyface.report.conflicts import render_alike_centers
    from manyface.train.build_data import build_source
    from manyface.train.scoring import read_run_config

    check_outputs([run], whole=[page], streamed=[joins, report])
    source = build_source(read_run_config(run), warn=warn)
    found = _alike(run, source, limit, checkpoint)
    if found.limit >= 1:
        warn(
            f"{run}: its class centers are so alike that nothing among them is unusual; train it "
            "longer, or give a cosine with --same-person"
        )
    names, more = source.identity_names, " or more" if found.is_cut else ""
    console = make_console()
    console.print(
        f"{len(found.pairs.people):>9}{more}  pairs of labels with alike class centers "
        f"(cosine {found.limit:.3f})"
    )
    if page is not None:
        _write_page(render_alike_centers(source, found, run=run.name), page)
    _write_lists(names, found.pairs, joins, report)
    if len(found.pairs.people):
        raise typer.Exit(FOUND)


def _alike(
    run: Path, source: "GroupedSource", limit: float | None, checkpoint: str
) -> "AlikeCenters":
    """The alike centers of a run, by class."""
    from dataclasses import replace

    import numpy as np

    from manyface.curate import SplitIdentities, find_alike_centers
    from manyface.train.centers import read_centers
    from manyface.train.devices import choose_device
    from manyface.train.scoring import find_checkpoint

    centers = read_centers(find_checkpoint(run, checkpoint))
    if centers.num_classes != source.num_identities:
        raise ConfigError(
            f"{run} has {centers.num_classes} class centers and its data {source.num_identities} "
            "people: the data has changed since, so nobody knows whose they are"
        )
    with Displays(run.name) as show:
        found = find_alike_centers(
            centers.read,
            centers.num_classes,
            sub_centers=centers.sub_centers,
            limit=limit,
            device=choose_device("auto"),
            progress=show("comparing class centers of"),
        )
    classes = [[centers.class_at(place) for place in pair] for pair in found.pairs.people.tolist()]
    people = np.sort(np.array(classes, np.int64).reshape(-1, 2), axis=1)
    return replace(found, pairs=SplitIdentities(people, found.pairs.cosines))

"""`manyface data convert`: a set in another format, with equal bytes."""

from pathlib import Path
from typing import Annotated

import typer

from manyface.cli.console import format_bytes, warn
from manyface.cli.data.shared import DataPath, Displays, Threads, open_with_progress


def convert(
    source: DataPath,
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="A new path; its suffix says the format.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="FORMAT", help="folder, list, tar, recordio, lmdb, shards or parquet."
        ),
    ] = None,
    shuffle: Annotated[
        int | None,
        typer.Option("--shuffle", metavar="SEED", help="Records in a random order, for DALI."),
    ] = None,
    header: Annotated[
        bool, typer.Option("--header", help="RecordIO with insightface's header records.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FILE", help="A keep-list of `manyface data check`."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read the new set in full and compare.")
    ] = True,
    threads: Threads = 0,
) -> None:
    """Write a set in another format. Images are copied byte for byte, never encoded again.

    The format is that of the suffix of DST: none a folder of persons, .txt a list and its images,
    .tar one tar file, .rec RecordIO, .lmdb LMDB, .shards tar shards, .parquet Parquet. If it is
    stopped, the same command goes on.

    \b
    Examples:
      manyface data convert faces_emore/train.rec faces/
      manyface data convert faces/ packed/train.rec --shuffle 1
      manyface data convert train.rec clean.rec --keep keep.txt
    """
    from manyface.data.records.kept import select_kept
    from manyface.data.tools.convert import ConvertOptions
    from manyface.data.tools.convert import convert as write
    from manyface.data.tools.formats import checked_target, format_for, path_for
    from manyface.data.tools.measures import total_bytes

    form = format_for(destination, to)
    path = checked_target(path_for(destination, form), [source])
    records = open_with_progress(source)
    if keep is not None:
        records = select_kept(records, keep)
    options = ConvertOptions(
        form=form, shuffle=shuffle, headers=header, verify=verify, threads=threads
    )
    with Displays(path.name) as show:
        write(records, path, options, show=show, warn=warn)
    checked = "read again and equal" if verify else "not verified"
    typer.echo(
        f"Wrote {path}: {len(records):,} images of {len(records.identity_names):,} people, "
        f"{format_bytes(total_bytes(records))}, {checked}"
    )

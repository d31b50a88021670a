"""`manyface data check`: what is wrong with a set, before a month is spent on it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from manyface.base.errors import ConfigError, WriteError
from manyface.cli.console import make_console
from manyface.cli.data.shared import (
    FOUND,
    DataPath,
    Displays,
    JsonFile,
    Threads,
    open_with_progress,
    write_json,
    write_kept,
)

if TYPE_CHECKING:
    from manyface.data.records import Records
    from manyface.data.tools.defects import Cases


def check(
    path: DataPath,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Of all images; default: that of most."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.tsv", help="Write every case.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="FILE", help="Write a keep-list, for data.keep."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="KIND", help="Leave out records of this kind too."),
    ] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates/--no-duplicates", help="Search for pictures seen twice.")
    ] = True,
    index: Annotated[
        bool, typer.Option("--index/--no-index", help="Keep checksums in the index of the set.")
    ] = True,
    threads: Threads = 0,
    json_file: JsonFile = None,
) -> None:
    """Decode every record and look for what is broken, doubled or mislabelled. Changes nothing.

    Exit code 0: no errors and no warnings (notes do not count); 3: there are some.

    \b
    Examples:
      manyface data check faces/
      manyface data check train.rec --report cases.tsv --keep keep.txt
    """
    from manyface.data.tools.check import CheckOptions, check_records
    from manyface.data.tools.formats import check_outputs

    check_outputs([path], whole=[keep], streamed=[report, json_file])
    options = CheckOptions(
        size=None if size is None else _parse_size(size),
        threads=threads,
        duplicates=duplicates,
        also_dropped=_checked_kinds(drop or []),
        keep_checksums=index,
    )
    records = open_with_progress(path)
    with Displays(path.name) as show, nullcontext() if report is None else _opened(report) as file:
        cases = check_records(records, options, show=show, report=file)
    _print(cases, len(records))
    if json_file is not None:
        write_json(json_file, _as_json(cases, records))
    if keep is not None:
        write_kept(keep, records, cases.dropped)
    if cases.num_defects:
        raise typer.Exit(FOUND)


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Written case by case: WriteError where that fails, at whichever of them."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
            yield file
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        raise WriteError(path, error) from error


def _parse_size(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    high = height if by else width
    if not (width.isdecimal() and high.isdecimal() and int(width) * int(high)):
        raise ConfigError(f"--size {text!r}: expected WIDTHxHEIGHT in pixels, such as 112x112")
    return int(width), int(high)


def _checked_kinds(kinds: list[str]) -> list[str]:
    from manyface.data.tools.defects import KINDS

    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--drop {kind!r}: no such kind; there are {', '.join(KINDS)}")
    return kinds


def _print(cases: "Cases", num_records: int) -> None:
    """A line per kind that was found, the worst first, with its first examples."""
    from manyface.data.tools.defects import KINDS

    console = make_console()
    found = {kind: about for kind, about in KINDS.items() if cases.counts[kind]}
    widest = max(map(len, found), default=0)
    for kind, about in found.items():
        line = f"{kind:<{widest}} {cases.counts[kind]:>7,}  {about.severity}: {about.meaning}"
        console.print(line, soft_wrap=True)
        for example in cases.examples.get(kind, []):
            console.print(f"    {example}", soft_wrap=True)
    verdict = f"{cases.num_defects:,} errors and warnings" if cases.num_defects else "no defects"
    console.print(f"{num_records:,} records checked: {verdict}")


def _as_json(cases: "Cases", records: "Records") -> dict[str, Any]:
    from manyface.data.tools.defects import KINDS

    found = {
        kind: {
            "severity": KINDS[kind].severity,
            "count": cases.counts[kind],
            "examples": cases.examples.get(kind, []),
        }
        for kind in KINDS
        if cases.counts[kind]
    }
    return {
        "path": str(records.path),
        "records": len(records),
        "identities": len(records.identity_names),
        "defects": cases.num_defects,
        "left_out_by_keep_list": len(cases.dropped),
        "found": found,
    }

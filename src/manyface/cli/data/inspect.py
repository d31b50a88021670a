"""`manyface data inspect`: what a set holds, in one look."""

from typing import TYPE_CHECKING, Annotated

import typer

from manyface.cli.console import format_bytes, make_console
from manyface.cli.data.shared import (
    DataPath,
    JsonFile,
    Threads,
    bars,
    open_with_progress,
    write_json,
)

if TYPE_CHECKING:
    from manyface.data.tools.inspection import Inspection, Spread

_NUM_SHOWN = 4


def inspect(
    path: DataPath,
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="Images to decode, drawn at random.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample.")] = 0,
    threads: Threads = 0,
    json_file: JsonFile = None,
) -> None:
    """Print identities, images, sizes, formats and the speed of reading.

    Counts are of the whole set; sizes, colours and speed are those of a sample.

    \b
    Examples:
      manyface data inspect faces/
      manyface data inspect faces_emore/train.rec --json facts.json
    """
    from manyface.data.tools.formats import check_outputs
    from manyface.data.tools.inspection import inspect_records
    from manyface.observe.counting import Counting

    check_outputs([path], streamed=[json_file])
    records = open_with_progress(path)
    with Counting(f"reading {path.name}", unit="images") as progress:
        found = inspect_records(
            records, sample=sample, seed=seed, threads=threads, progress=progress
        )
    _print(found)
    if json_file is not None:
        write_json(json_file, found.as_json())


def _print(found: "Inspection") -> None:
    console = make_console()
    console.print(f"{found.path} ({found.format})")
    for name, text in _facts(found).items():
        console.print(f"  {name:<12} {text}")
    console.print("images per identity")
    for line in _picture(found.histogram, console.width):
        console.print(f"  {line}", soft_wrap=True)


def _facts(found: "Inspection") -> dict[str, str]:
    facts = {
        "identities": f"{found.identities:,}",
        "images": f"{found.images:,}; of an identity {_spread(found.per_identity)}",
        "sample": f"{found.sampled:,} images"
        + (f", {found.unreadable:,} cannot be read" if found.unreadable else ""),
    }
    if found.bytes_per_image is not None:
        facts |= {
            "bytes": f"of an image {_spread(found.bytes_per_image)}",
            "pixels": _shares(found.sizes, found.sampled),
            "format": _shares(found.forms, found.sampled),
            "colours": _shares(found.colours, found.sampled),
        }
    if found.one_thread is not None and found.all_threads is not None:
        threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
        speeds = f"{found.one_thread:,.0f}/s on 1 thread, {found.all_threads:,.0f}/s on {threads}"
        facts["read+decode"] = speeds
    if found.left_out is not None:
        facts["left out"] = f"{found.left_out:,} records"
    if found.headers is not None:
        facts["headers"] = f"{found.headers:,} records without image" if found.headers else "none"
    if found.checksums is not None:
        facts["checksums"] = "known" if found.checksums else "not known (manyface data check)"
    return {**facts, "index": format_bytes(found.index_bytes)}


def _spread(spread: "Spread") -> str:
    return (
        f"{spread.smallest:,.0f} to {spread.largest:,.0f}, median {spread.median:,.0f}, "
        f"mean {spread.mean:,.1f}"
    )


def _shares(counts: dict[str, int], total: int) -> str:
    """ "112x112 99.0 %, 96x112 1.0 %"; the rest of many as a number."""
    shown = [f"{name} {100 * count / total:.1f} %" for name, count in list(counts.items())]
    more = f", {len(shown) - _NUM_SHOWN} others" if len(shown) > _NUM_SHOWN else ""
    return ", ".join(shown[:_NUM_SHOWN]) + more


def _picture(histogram: list[tuple[int, int, int]], width: int) -> list[str]:
    """One bar per bin of images per identity: range, bar, identities."""
    names = [f"{low}" if low == high else f"{low}-{high}" for low, high, _ in histogram]
    counts = [f"{count:,}" for _, _, count in histogram]
    widest, longest = max(map(len, names)), max(map(len, counts))
    room = max(8, min(50, width - widest - longest - 8))
    drawn = bars([count for _, _, count in histogram], room)
    return [
        f"{name:>{widest}} {bar} {count}"
        for name, bar, count in zip(names, drawn, counts, strict=True)
    ]

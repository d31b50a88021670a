"""`manyface data pairs`: make verification sets, and look into those of others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.data.shared import DataPath, open_with_progress

if TYPE_CHECKING:
    from manyface.data.bin_file import VerificationSet
    from manyface.data.records import Records
    from manyface.evaluate import PairSet

_NUM_SHOWN = 3


def pairs(
    source: DataPath,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="DST", help="A .bin or a list (.txt) to make; of a .bin, a folder."),
    ] = None,
    listed: Annotated[
        str | None,
        typer.Option("--pairs", metavar="FILE", help="Take these pairs, an LFW list."),
    ] = None,
    num_pairs: Annotated[
        int, typer.Option("--num-pairs", help="Pairs to draw, half of them of one person.")
    ] = 6000,
    folds: Annotated[int, typer.Option("--folds", min=2, help="That share no person.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
) -> None:
    """Draw pairs of faces to verify on, or look into an insightface .bin.

    Of faces: writes insightface's .bin (evaluation.pairs = "mine.bin"), or an LFW list of pairs.
    Of a .bin: prints what it holds; with DST, writes its images and pairs as a folder and a list.

    \b
    Examples:
      manyface data pairs faces/ mine.bin --num-pairs 6000
      manyface data pairs lfw.tar lfw.bin --pairs lfw-lists/pairs.txt
      manyface data pairs agedb_30.bin
      manyface data pairs agedb_30.bin agedb/
    """
    from manyface.data.bin_file import find_bin, read_bin

    if target is not None:
        _check_target(target, source, listed)
    if find_bin(source, near=Path()) is not None:
        if listed is not None:
            raise ConfigError("--pairs is a list of pairs of faces; a .bin has pairs of its own")
        found = read_bin(source)
        _look(source, found)
        if target is not None:
            _unpack(found, target, folds)
        return
    if target is None or target.suffix not in (".bin", ".txt"):
        raise ConfigError(
            f"give DST, a .bin (images and pairs) or a .txt (a list) to make, not {target}"
        )
    records = open_with_progress(source)
    _make(records, _chosen(records, listed, num_pairs, folds, seed), target)


def _check_target(target: Path, source: Path, listed: str | None) -> None:
    """Neither the set nor the list of pairs is overwritten."""
    from manyface.data.tools.formats import check_outputs

    lists = [source / listed, source.parent / listed, Path(listed).expanduser()] if listed else []
    check_outputs([source, *lists], whole=[target] if target.suffix == ".bin" else [],
                  streamed=[target] if target.suffix == ".txt" else [])  # fmt: skip


def _look(path: Path, found: "VerificationSet") -> None:
    from manyface.evaluate.pair_files import survey
    from manyface.observe.counting import Counting

    with Counting(f"decoding {path.name}", unit="images") as progress:
        seen = survey(found, progress=progress)
    same = int(found.same.sum())
    typer.echo(f"{path}: {len(found)} pairs, {same} same and {len(found) - same} different")
    sizes = ", ".join(f"{w}x{h}: {count}" for (w, h), count in seen.sizes.most_common(_NUM_SHOWN))
    more = len(seen.sizes) - _NUM_SHOWN
    typer.echo(f"  images     {len(found.images)}, {seen.num_distinct} of them distinct")
    typer.echo(f"  sizes      {sizes or '-'}{f', and {more} more sizes' if more > 0 else ''}")
    typer.echo(f"  unreadable {len(seen.unreadable)}")
    for index, reason in seen.unreadable[:_NUM_SHOWN]:
        typer.echo(f"    image {index} (pair {index // 2}): {reason}")


def _unpack(found: "VerificationSet", target: Path, folds: int) -> None:
    from manyface.evaluate.pair_files import LIST, unpack
    from manyface.observe.counting import Counting

    with Counting(f"writing {target.name}", unit="images") as progress:
        unpack(found, target, folds=folds, progress=progress)
    typer.echo(f"Wrote {target} and {target / LIST}")


def _chosen(
    records: "Records", listed: str | None, num_pairs: int, folds: int, seed: int
) -> "PairSet":
    from manyface.data import DecodedImages, find_text
    from manyface.evaluate import lfw_pairs, synthetic_pairs

    source = DecodedImages(records, image_size=1, threads=1, cache=0)  # for names, not pixels
    if listed is not None:
        return lfw_pairs(source, find_text(records, listed), folds=folds)
    return synthetic_pairs(source, num_pairs=num_pairs, folds=folds, seed=seed)


def _make(records: "Records", chosen: "PairSet", target: Path) -> None:
    from manyface.cli.console import write_text
    from manyface.data.bin_file import write_bin
    from manyface.data.lists import write_pairs
    from manyface.evaluate.pair_files import name_pairs, pack
    from manyface.observe.counting import Counting

    if target.suffix == ".bin":
        with Counting(f"reading {records.path.name}", unit="images") as progress:
            write_bin(target, pack(chosen, records, progress=progress))
    else:
        write_text(target, write_pairs(name_pairs(chosen, records)))
    same = int(chosen.same.sum())
    people = len(chosen.identity_names())
    typer.echo(
        f"Wrote {target}: {same} same and {len(chosen) - same} different pairs of {people} people"
    )

"""What the verbs of `manyface data` share: the argument, opening with progress, pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from manyface.cli.console import warn, write_text

if TYPE_CHECKING:
    from manyface.base.progress import Progress
    from manyface.curate import EmbeddedSet
    from manyface.data import DecodedImages
    from manyface.data.records import Records

FOUND = 3  # exit code: something is wrong with the data; errors of the program have 1 and 2

DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        help="A folder of persons, a tar file of one, a list file, a train.rec, ...",
    ),
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="That read and decode; 0: one per core.")
]
Model = Annotated[
    Path, typer.Option("--model", metavar="MODEL", help="A run, a bundle, ...: the net that looks.")
]
Checkpoint = Annotated[
    str,
    typer.Option("--checkpoint", help='"last", "best", or the name of a folder in checkpoints.'),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write what was found as JSON.")
]
_BLOCKS = " ▏▎▍▌▋▊▉█"


def open_with_progress(path: Path) -> "Records":
    """The reader for `path`; shows how far an index is that has to be built."""
    from manyface.data.records import open_records
    from manyface.observe.counting import Counting

    with Counting(f"indexing {path.name}") as progress:
        return open_records(path, warn=warn, progress=progress)


def embed_all(
    sets: "Sequence[Records]", model: Path, *, checkpoint: str, threads: int
) -> "list[tuple[DecodedImages, EmbeddedSet]]":
    """The images of each set, and their embeddings by the net at `model`."""
    from manyface.curate import embed_set
    from manyface.data import DecodedImages
    from manyface.model import load

    net = load(model, checkpoint=checkpoint)
    found = []
    for records in sets:
        images = DecodedImages(
            records, image_size=net.image_size, threads=threads, cache=0, warn=warn
        )
        with Displays(records.path.name) as show:
            embedded = embed_set(net.embed_batch, images, progress=show("embedding"))
        found.append((images, embedded))
    return found


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A file that the user has asked for."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Lines of fields with TABs between them, as keep-lists write names."""
    from manyface.data.records.kept import escaped

    write_text(path, "".join("\t".join(map(escaped, row)) + "\n" for row in rows))


def write_kept(path: Path, records: "Records", dropped: Iterable[int]) -> None:
    """A keep-list of `records` without `dropped`, and a word on it."""
    from manyface.data.records.kept import write_keep_list

    count = write_keep_list(path, records, dropped)
    typer.echo(f"Wrote {path}: {count} of {len(records)} records are left out")


def bars(values: Sequence[float], width: int) -> list[str]:
    """Horizontal bars, the longest `width` characters long, in eighths of a character."""
    largest = max(values, default=0) or 1
    drawn = []
    for value in values:
        eighths = max(round(8 * width * value / largest), 1 if value else 0)
        drawn.append("█" * (eighths // 8) + _BLOCKS[eighths % 8].strip())
    return drawn


class Displays:
    """The progress of one part of the work after the other; a context manager.

    Call it with the name of a part for its display; that of the part before is taken away.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._current = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._current.close()

    def __call__(self, name: str) -> "Progress":
        from manyface.observe.counting import Counting

        self._current.close()
        return self._current.enter_context(Counting(f"{name} {self._subject}"))

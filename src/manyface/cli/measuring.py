"""What the verbs of `manyface bench` share: progress, and a file with all figures."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from manyface.cli.console import write_text

Report = Callable[[str, str], None]


def measure_to(
    file: Path | None, names: Sequence[str], measure: Callable[[Report], dict[str, Any]]
) -> dict[str, Any]:
    """What `measure` finds, with its provenance, written to `file` too.

    That the file can be written is tried before. `measure` is given what to call with (one of
    `names`, what it does).
    """
    from manyface.observe.provenance import provenance

    if file is not None:
        write_text(file, "", mode="a")
    with _progress(list(names)) as report:
        found = measure(report)
    result = {"provenance": provenance(), **found}
    if file is not None:
        write_text(file, json.dumps(result, indent=2) + "\n")
    return result


@contextmanager
def _progress(names: list[str]) -> Iterator[Report]:
    """Says what goes on: a line that changes on a terminal, else a line for each stage."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)

    def line(name: str, doing: str) -> str:
        return f"[{names.index(name) + 1}/{len(names)}] {name}: {doing}"

    if not console.is_terminal:

        def say(name: str, doing: str) -> None:
            if not doing.startswith("step"):
                typer.echo(line(name, doing), err=True)

        yield say
        return
    with console.status(Text("starting")) as status:
        yield lambda name, doing: status.update(Text(line(name, doing)))

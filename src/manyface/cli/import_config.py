"""`manyface import-config`: a configuration of insightface as a recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer

from manyface.base.errors import ConfigError
from manyface.cli.console import write_text
from manyface.config import parse_config, toml_value

_MOST_LINES = 40  # of one list


def import_config(
    file: Annotated[
        Path, typer.Argument(help="One of arcface_torch, such as configs/ms1mv3_r50.py.")
    ],
    ranks: Annotated[
        int, typer.Option(min=1, help="GPUs it trained on: its batch_size is of one of them.")
    ] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The recipe; default standard output.")
    ] = None,
) -> None:
    """Turn a configuration of insightface's arcface_torch into a recipe; it is read, never run.

    \b
    Examples:
      manyface import-config configs/ms1mv3_r50.py --ranks 8 > ms1mv3_r50.toml
      manyface import-config configs/wf42m_pfc02_r100.py --ranks 16 -o recipe.toml

    What could not be taken over, and what means something else here, is listed on standard error.
    """
    from manyface.compat.insightface_config import convert

    found = convert(file, ranks=ranks)
    text = f"# insightface's {file.name}, of {ranks} GPU{'s'[: ranks > 1]}.\n\n" + _as_toml(
        found.table
    )
    _check(text, file)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
    _list("not understood (what base.py says stands)", found.not_understood)
    _list("not taken over", found.not_mapped)
    _list("differs", found.differs)


def _as_toml(table: dict[str, dict[str, Any]]) -> str:
    blocks = [
        "\n".join([f"[{section}]", *(f"{key} = {toml_value(one)}" for key, one in keys.items())])
        for section, keys in table.items()
    ]
    return "\n\n".join(blocks) + "\n"


def _check(text: str, file: Path) -> None:
    """The recipe must be one that training accepts."""
    try:
        parse_config(text, source="its recipe")
    except ConfigError as error:
        raise ConfigError(f"{file}: cannot be a recipe: {error}") from None


def _list(title: str, lines: list[str]) -> None:
    shown = lines[:_MOST_LINES]
    if len(lines) > len(shown):
        shown = [*shown, f"and {len(lines) - len(shown)} more"]
    if shown:
        typer.echo("\n".join([f"{title}:", *(f"  {line}" for line in shown)]), err=True)

"""`manyface data`: read, check and change sets of faces; a file for each verb."""

import typer

from manyface.cli.data import align

app = typer.Typer(
    help="Read, check and change sets of faces.", no_args_is_help=True, rich_markup_mode=None
)

app.command("align", short_help="Photos -> aligned faces.")(align.align)

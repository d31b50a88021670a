"""`manyface data`: look at a set, check it, put it into other files. One file per verb."""

import typer

from manyface.cli.data import check, convert, inspect

app = typer.Typer(
    help="Look at a set of faces, check it, put it into other files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("inspect", short_help="What a set holds.")(inspect.inspect)
app.command("check", short_help="What is wrong with a set; a report and a keep-list.")(check.check)
app.command("convert", short_help="A set in another format, byte for byte.")(convert.convert)

"""`manyface data`: look at a set, check it, put it into other files. One file per verb."""

import typer

from manyface.cli.data import align, check, clean, convert, inspect, merge, pairs

app = typer.Typer(
    help="Look at a set of faces, check it, put it into other files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("inspect", short_help="What a set holds.")(inspect.inspect)
app.command("check", short_help="What is wrong with a set; a report and a keep-list.")(check.check)
app.command("convert", short_help="The same set in another format.")(convert.convert)
app.command("clean", short_help="Wrong labels and split identities, by a net.")(clean.clean)
app.command("merge", short_help="Several sets as one.")(merge.merge)
app.command("align", short_help="Photos to aligned faces.")(align.align)
app.command("pairs", short_help="Make and read verification sets.")(pairs.pairs)

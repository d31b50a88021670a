"""The program and its verbs, and the help that teaches them.

Verbs import what they need when they run: the help is there at once, and Ctrl-C while torch is
being imported ends in one line like any other.
"""

from typing import Annotated

import typer

import manyface
from manyface.cli import (
    bench,
    checkpoint,
    cluster,
    compare,
    config,
    data,
    demo,
    doctor,
    embed,
    enroll,
    evaluate,
    export,
    import_config,
    plan,
    report,
    reproduce,
    search,
    train,
)

HELP = """Train face-recognition embeddings with very many identities, and see how good they are.

\b
Start here:
  manyface doctor               is this machine ready?
  manyface demo                 train on synthetic faces, compare the methods
  manyface train recipe.toml    train on your own folder of faces

\b
A folder of faces has one folder per person, with photos in it. Then:
  manyface data check /my/faces
  manyface plan recipe.toml --gpus 8
  manyface train recipe.toml --set data.path=/my/faces --set head.sample_rate=0.1
  manyface evaluate runs/recipe
  manyface report runs/recipe
  manyface export runs/recipe --format onnx

\b
Use a trained net:
  manyface enroll people/ --model runs/recipe --index people.index
  manyface search who.jpg --index people.index
  manyface embed runs/recipe faces/ --output faces.safetensors

\b
What a head, and what a whole training, costs on this machine:
  manyface bench head --classes 1000000
  manyface bench train recipe.toml

`manyface config` prints every key of a recipe with its meaning.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"manyface {manyface.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, with any command.")
    ] = False,
) -> None:
    # --debug is taken out of the arguments by `main`, so that it may stand anywhere.
    pass


for verb, function, summary in (
    ("train", train.train, "Train as a recipe says."),
    ("plan", plan.plan, "What a recipe will take, before it runs."),
    ("demo", demo.demo, "Full FC, Partial FC and F2C on synthetic faces, in minutes."),
    ("evaluate", evaluate.evaluate, "Judge a net on pairs, galleries, IJB, all against all."),
    ("export", export.export, "A model as one file: a bundle, or ONNX."),
    ("embed", embed.embed, "The embeddings of images in one file."),
    ("compare", compare.compare, "Are two faces one person?"),
    ("enroll", enroll.enroll, "People into an index, and out of it."),
    ("search", search.search, "Who is on these images?"),
    ("cluster", cluster.cluster, "Which images are of one person?"),
    ("report", report.report, "One HTML page that shows or compares runs."),
    ("reproduce", reproduce.reproduce, "The papers' claims held to the test, study by study."),
    ("config", config.config, "Print a recipe with the meaning of every key."),
    ("import-config", import_config.import_config, "A configuration of insightface as a recipe."),
    ("doctor", doctor.doctor, "What this machine has, and what is missing."),
):
    app.command(verb, short_help=summary)(function)
app.add_typer(
    checkpoint.app,
    name="checkpoint",
    short_help="Look at checkpoints, check them, put them into other files.",
)
app.add_typer(
    bench.app, name="bench", short_help="Time and memory of heads and trainings on this machine."
)
app.add_typer(
    data.app, name="data", short_help="Look at a set of faces, check it, put it into other files."
)

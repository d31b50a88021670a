"""`manyface compare`: are two faces one person?"""

from pathlib import Path
from typing import Annotated

import typer

from manyface.base.errors import DataError
from manyface.cli.data.shared import Checkpoint
from manyface.cli.using import Align, Device, Looking, ModelOption, Resize, Threshold


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image of a face.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    model: ModelOption,
    threshold: Threshold = None,
    align: Align = None,
    resize: Resize = False,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
) -> None:
    """Say how alike two faces are, and, where the model has a threshold, if they are one person.

    \b
    Examples:
      manyface compare ann.jpg bob.jpg --model runs/lfw
      manyface compare photo1.jpg photo2.jpg --model model.safetensors --align uniface
    """
    from manyface.cli.using import chosen_limit, describe_limit, embedded_now, limit_of, open_model
    from manyface.data.records.loose import LooseRecords

    for path in (first, second):
        if not path.is_file():
            raise DataError(f"no such image: {path}")
    net = open_model(model, device=device, checkpoint=checkpoint)
    limit = chosen_limit(threshold, limit_of(net))
    embeddings, found = embedded_now(
        net, LooseRecords(first, [first, second]), Looking(align=align, resize=resize)
    )
    if found.left_out:
        raise DataError("two faces are needed to compare them")
    cosine = float(embeddings[0] @ embeddings[1])
    typer.echo(f"cosine {cosine:.4f}")
    if limit is None:
        typer.echo("no decision: the model has no threshold; export it with one, or give one")
        return
    verdict = "same person" if cosine >= limit.cosine else "different people"
    typer.echo(f"{verdict} (threshold {describe_limit(limit)})")

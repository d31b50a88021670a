"""`manyface embed`: the embeddings of images in one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.cli.data.shared import Checkpoint, Threads
from manyface.cli.using import Align, BatchSize, Device, Looking, ModelArgument, Resize

if TYPE_CHECKING:
    from manyface.model import FaceModel
    from manyface.parallel import Ranks


def embed(
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES",
            help="A set (a folder of persons, a tar, a list, a train.rec, ...), a folder of "
            "images, or image files.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A .safetensors or .npy file.")
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="safetensors, with names, or npy, with names in a .tsv beside it."
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Compute and keep in half precision.")
    ] = False,
    align: Align = None,
    resize: Resize = False,
    batch_size: BatchSize = 128,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Embed every image once: one vector of unit length each, compared by their dot product.

    Images that cannot be used are left out and listed in FILE.left_out.tsv. If it is stopped, the
    same command goes on, and ends in the same bytes. Under torchrun each rank does its share.

    \b
    Examples:
      manyface embed runs/lfw faces/ --output faces.safetensors
      manyface embed model.safetensors train.rec -o train.npy --half
      manyface embed runs/lfw photos/ -o photos.safetensors --align uniface
      torchrun --nproc-per-node 8 -m manyface embed runs/lfw train.rec -o train.safetensors
    """
    from contextlib import nullcontext

    from manyface.base.files import held
    from manyface.base.threads import cpu_threads
    from manyface.cli.using import A_DAY, open_model
    from manyface.data.tools.formats import checked_target
    from manyface.evaluate.embedding_files import checked_format
    from manyface.parallel import joined
    from manyface.train.devices import choose_device, threads_here

    target = checked_target(output.expanduser(), [model, *images])
    form = checked_format(target, form or target.suffix[1:])
    net = open_model(model, device=device, checkpoint=checkpoint)
    looking = Looking(align=align, resize=resize, batch_size=batch_size, half=half)
    with joined(choose_device(device), seconds=A_DAY) as ranks, cpu_threads(threads_here()):
        one_writer = held(target) if ranks.rank == 0 else nullcontext()
        with one_writer:
            _embed(net, images, target, form, looking, threads=threads, ranks=ranks, path=model)


def _embed(
    net: "FaceModel",
    images: list[Path],
    target: Path,
    form: str,
    looking: Looking,
    *,
    threads: int,
    ranks: "Ranks",
    path: Path,
) -> None:
    from manyface.cli.console import shown
    from manyface.cli.using import embedded, images_at
    from manyface.evaluate.embedding_files import write_embeddings
    from manyface.evaluate.part_files import parts_folder, remove_parts

    records = images_at(images)
    folder = parts_folder(target)
    found = embedded(net, records, folder, looking, threads=threads, ranks=ranks)
    if ranks.rank == 0:
        notes = {
            "model": str(path),
            "fingerprint": net.fingerprint,
            "source": str(records.path),
        }
        written = write_embeddings(target, found, records, notes, form=form)
        typer.echo(f"Wrote {', '.join(map(str, written))}: {len(found)} images, "
                   f"{found.embedding_size} values each")  # fmt: skip
        if found.left_out:
            record, reason = found.left_out[0]
            first = shown(f"{records.describe(record)}: {reason}")
            typer.echo(f"{len(found.left_out)} of {len(records)} images are left out, see "
                       f"{written[-1]} (first: {first})")  # fmt: skip
    ranks.wait_for_all("embeddings written")  # the others read the parts, too
    if ranks.rank == 0:
        remove_parts(folder)

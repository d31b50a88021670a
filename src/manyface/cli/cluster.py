"""`manyface cluster`: which images are of one person?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from manyface.base.errors import ConfigError
from manyface.cli.data.shared import Checkpoint, Threads
from manyface.cli.using import Align, BatchSize, Device, Looking, ModelOption, Resize, Threshold

if TYPE_CHECKING:
    import numpy.typing as npt

    from manyface.data.records import Records

    Int64Array = npt.NDArray[np.int64]


def cluster(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="A folder of images, image files, or a set of people."),
    ],
    model: ModelOption,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.tsv", help="Gets a line for each image."),
    ],
    threshold: Threshold = None,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="Of each image that are looked at.")
    ] = 30,
    align: Align = None,
    resize: Resize = False,
    batch_size: BatchSize = 128,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Sort images by person: two groups are one while their images have a mean cosine above the
    threshold.

    Writes group, image and, where the set says it, person; the largest group first. Where people
    are known, the groups are compared with them.

    \b
    Examples:
      manyface cluster photos/ --model runs/lfw --threshold 0.35 --output groups.tsv
      manyface cluster photos/ --model model.safetensors --align uniface -o groups.tsv
    """
    from manyface.base.files import held
    from manyface.cli.using import (
        chosen_limit,
        describe_limit,
        embedded,
        images_at,
        limit_of,
        name_left_out,
        open_model,
    )
    from manyface.data.tools.formats import checked_target
    from manyface.evaluate.part_files import parts_folder, remove_parts
    from manyface.gallery import cluster as find_groups
    from manyface.observe.counting import Counting

    target = checked_target(output.expanduser(), [model, *images])
    net = open_model(model, device=device, checkpoint=checkpoint)
    limit = chosen_limit(threshold, limit_of(net))
    if limit is None:
        raise ConfigError("the model has no threshold: give one with --threshold, such as 0.35")
    looking = Looking(align=align, resize=resize, batch_size=batch_size)
    with held(target):
        records = images_at(images)
        folder = parts_folder(target)
        found = embedded(net, records, folder, looking, threads=threads)
        name_left_out(found, records)
        with Counting(f"comparing {records.path.name}", unit="images") as progress:
            groups = find_groups(
                found.array(), limit=limit.cosine, neighbours=neighbours, progress=progress
            )
        _write(target, records, found.records, groups)
        remove_parts(folder)
    typer.echo(f"Wrote {target}: {_described(groups)} (threshold {describe_limit(limit)})")
    _compare(records, found.records, groups)


def _described(groups: "Int64Array") -> str:
    sizes = np.bincount(groups)
    alone = int((sizes == 1).sum())
    return f"{len(groups):,} images in {len(sizes):,} groups, {alone:,} of one image"


def _write(target: Path, records: "Records", kept: "Int64Array", groups: "Int64Array") -> None:
    from manyface.base.files import written
    from manyface.cli.console import shown
    from manyface.data.records import labels_of

    people = labels_of(records.first_images, kept)
    with written(target) as file:
        file.write(b"group\timage\tperson\n")
        for place in np.lexsort((kept, groups)).tolist():
            person = records.identity_names[int(people[place])]
            image = records.describe(int(kept[place]))
            file.write(f"{groups[place]}\t{shown(image)}\t{shown(person)}\n".encode())


def _compare(records: "Records", kept: "Int64Array", groups: "Int64Array") -> None:
    """With the people of the set, if it has several."""
    from manyface.data.records import labels_of
    from manyface.data.records.loose import has_people
    from manyface.gallery import bcubed, pairwise

    people = labels_of(records.first_images, kept)
    if not has_people(records) or len(np.unique(people)) < 2:
        return
    typer.echo("against the people of the set:")
    for name, found in (("BCubed", bcubed(groups, people)), ("pairs", pairwise(groups, people))):
        typer.echo(
            f"  {name:<7} F {found.f:.3f}  precision {found.precision:.3f}  "
            f"recall {found.recall:.3f}"
        )

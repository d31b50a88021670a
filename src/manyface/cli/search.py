"""`manyface search`: who is on these images?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyface.cli.data.shared import Checkpoint, JsonFile
from manyface.cli.using import (
    AlignAsIndex,
    Device,
    IndexFile,
    ModelOfIndex,
    ResizeAsIndex,
    Threshold,
)

if TYPE_CHECKING:
    from manyface.gallery import Limit, Match, PeopleIndex

_WORTH_A_WORD = 0.01  # share of strangers who would be taken for somebody
UNKNOWN = "unknown"


def search(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Image files, or a folder of them.")
    ],
    index: IndexFile,
    model: ModelOfIndex = None,
    top: Annotated[int, typer.Option("--top", min=1, help="People to name for each image.")] = 5,
    threshold: Threshold = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with everybody, in large indexes too.")
    ] = False,
    align: AlignAsIndex = None,
    resize: ResizeAsIndex = None,
    json_file: JsonFile = None,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
) -> None:
    """Name the people of an index who are most like the face on each image.

    Whoever is below the threshold is not the person: the image is of somebody unknown.

    \b
    Examples:
      manyface search who.jpg --index people.index
      manyface search photos/ --index people.index --align uniface --json found.json
    """
    from manyface.cli.data.shared import write_json
    from manyface.cli.using import (
        chosen_limit,
        embedded_now,
        images_at,
        limit_of,
        looking_as,
        model_of_index,
    )
    from manyface.gallery import PeopleIndex, Search

    path = index.expanduser()
    people = PeopleIndex.open(path)
    looking_in = Search(people, exact=exact)
    net, _ = model_of_index(people, path, model, device=device, checkpoint=checkpoint)
    limit = chosen_limit(threshold, limit_of(net) or people.maker.limit)
    records = images_at(images)
    faces, found = embedded_now(net, records, looking_as(people.cropping, align, resize))
    matches = looking_in.people(faces, top)
    names = [records.describe(record) for record in found.records.tolist()]
    _print(names, matches, limit, people)
    if json_file is not None:
        write_json(json_file, _as_json(names, matches, limit, people))
        typer.echo(f"Wrote {json_file}")


def who(matches: "list[Match]", limit: "Limit | None") -> str | None:
    """The name of the person, UNKNOWN below the threshold; None where there is none."""
    if limit is None:
        return None
    return matches[0].name if matches[0].cosine >= limit.cosine else UNKNOWN


def _print(
    names: list[str],
    matches: "list[list[Match]]",
    limit: "Limit | None",
    people: "PeopleIndex",
) -> None:
    from manyface.cli.console import make_console, shown

    console = make_console()
    for name, found in zip(names, matches, strict=True):
        verdict = who(found, limit)
        line = name if verdict is None else f"{name}: {verdict}"
        console.print(shown(line), soft_wrap=True)
        for match in found:
            below = limit is not None and match.cosine < limit.cosine
            mark = " (below)" if below else ""
            console.print(f"  {match.cosine:6.3f}  {shown(match.name)}{mark}", soft_wrap=True)
    for line in _notes(limit, len(people.people.names)):
        console.print(line)


def _notes(limit: "Limit | None", num_people: int) -> list[str]:
    """What the threshold is, and what it is worth among so many people."""
    from manyface.cli.using import describe_limit
    from manyface.gallery import false_alarms

    if limit is None:
        return ["no decision: the model has no threshold; give one with --threshold"]
    lines = [f"threshold {describe_limit(limit)}"]
    if limit.far is not None:
        share = false_alarms(limit.far, num_people)
        if share >= _WORTH_A_WORD:
            lines.append(
                f"among {num_people:,} people that takes about {100 * share:.0f} of 100 strangers "
                "for somebody: a higher threshold (a lower FAR) suits a large index"
            )
    return lines


def _as_json(
    names: list[str],
    matches: "list[list[Match]]",
    limit: "Limit | None",
    people: "PeopleIndex",
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "index_version": people.version,
        "fingerprint": people.maker.fingerprint,
        "threshold": None if limit is None else asdict(limit),
        "images": [
            {
                "image": name,
                "person": who(found, limit),
                "people": [asdict(match) for match in found],
            }
            for name, found in zip(names, matches, strict=True)
        ],
    }

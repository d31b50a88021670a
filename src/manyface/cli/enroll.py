"""`manyface enroll`: people into an index, and out of it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError
from manyface.cli.data.shared import Checkpoint, Threads
from manyface.cli.using import (
    AlignAsIndex,
    BatchSize,
    Device,
    IndexFile,
    Looking,
    ModelOfIndex,
    ResizeAsIndex,
)

if TYPE_CHECKING:
    from manyface.data.records import Records
    from manyface.evaluate.embedding_pass import EmbeddedImages
    from manyface.gallery import Faces, PeopleIndex
    from manyface.model import FaceModel


def enroll(
    index: IndexFile,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="One folder per person, or any other set of people."),
    ] = None,
    model: ModelOfIndex = None,
    replace_people: Annotated[
        bool,
        typer.Option("--replace", help="People of DIR lose the embeddings that they have."),
    ] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="NAME", help="Take a person out. May be repeated."),
    ] = None,
    align: AlignAsIndex = None,
    resize: ResizeAsIndex = None,
    batch_size: BatchSize = 128,
    checkpoint: Checkpoint = "last",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Enrol the people of a folder in an index, which `manyface search` looks through.

    Enrolling again adds images to people; an image of the same name takes the place of the former
    one. The index is written anew and renamed: if it is stopped, the old one is there, and the same
    command goes on.

    \b
    Examples:
      manyface enroll people/ --model runs/lfw --index people.index
      manyface enroll more/ --index people.index
      manyface enroll ann/ --index people.index --replace
      manyface enroll --index people.index --remove "Ann Lee"
    """
    from manyface.base.files import held
    from manyface.cli.using import looking_as
    from manyface.data.tools.formats import checked_target

    if (source is None) == (not remove):
        raise ConfigError("give a folder of people to enrol, or --remove NAME, one of the two")
    path = checked_target(index.expanduser(), [])
    with held(path):
        if source is None:
            _remove(path, remove or [])
            return
        before, net, place = _open(path, model, device=device, checkpoint=checkpoint)
        looking = replace(looking_as(before.cropping, align, resize), batch_size=batch_size)
        _enrol(path, before, net, place, source, looking, replace_people, threads)


def _open(
    path: Path, given: Path | None, *, device: str, checkpoint: str
) -> "tuple[PeopleIndex, FaceModel, Path]":
    """The index as it is, a new one where there is none, and the model with its place."""
    from manyface.cli.using import maker_of, model_of_index, open_model
    from manyface.gallery import PeopleIndex

    if not path.exists():
        if given is None:
            raise ConfigError(f"{path} is not there yet: give the model of a new one with --model")
        net = open_model(given, device=device, checkpoint=checkpoint)
        return PeopleIndex.new(maker_of(net, given)), net, given
    index = PeopleIndex.open(path)
    net, place = model_of_index(index, path, given, device=device, checkpoint=checkpoint)
    return replace(index, maker=maker_of(net, place)), net, place


def _enrol(
    path: Path,
    index: "PeopleIndex",
    net: "FaceModel",
    place: Path,
    source: Path,
    looking: Looking,
    replace_people: bool,
    threads: int,
) -> None:
    from manyface.cli.data.shared import open_with_progress
    from manyface.cli.using import embedded, name_left_out
    from manyface.evaluate.part_files import parts_folder, remove_parts
    from manyface.gallery import Cropping

    records = open_with_progress(source)
    folder = parts_folder(path)
    found = embedded(net, records, folder, looking, threads=threads)
    name_left_out(found, records)
    if not index.changes:
        index = replace(index, cropping=Cropping(looking.align, looking.resize))
    changed = index.enrol(
        _faces(found, records), source=str(source), when=_now(), replace_people=replace_people
    )
    changed.save(path)
    remove_parts(folder)
    typer.echo(f"Enrolled {len(found)} images in {path}: {_described(changed)}")


def _remove(path: Path, names: list[str]) -> None:
    from manyface.cli.console import shown
    from manyface.data.records.naming import person_name
    from manyface.gallery import PeopleIndex

    people = [person_name(name) for name in names]  # as the names of a set are read
    changed = PeopleIndex.open(path).remove(people, when=_now())
    changed.save(path)
    typer.echo(f"Removed {shown(', '.join(people))} from {path}: {_described(changed)}")


def _faces(found: "EmbeddedImages", records: "Records") -> "Faces":
    from manyface.data.records import labels_of
    from manyface.data.records.table import StringTable
    from manyface.gallery import Faces

    return Faces(
        embeddings=found.array(),
        labels=labels_of(records.first_images, found.records),
        names=records.identity_names,
        images=StringTable(records.file_name(record) for record in found.records.tolist()),
    )


def _described(index: "PeopleIndex") -> str:
    people = index.people
    return f"version {index.version}, {len(people.names):,} people, {len(people):,} embeddings"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

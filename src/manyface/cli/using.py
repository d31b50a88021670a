"""What the verbs that use a trained net share: options, the model, images through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from manyface.base.errors import ConfigError, DataError
from manyface.cli.console import tell, warn

if TYPE_CHECKING:
    from manyface.data.records import Records
    from manyface.evaluate.embed import EmbedFunction
    from manyface.evaluate.embedding_pass import EmbeddedImages, PassOptions
    from manyface.gallery import Cropping, Limit, Maker, PeopleIndex
    from manyface.gallery.people import FloatArray
    from manyface.model import FaceModel
    from manyface.parallel import Ranks

MODEL_HELP = "A run, a checkpoint, a bundle, an ONNX file or published weights."
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
ModelOption = Annotated[Path, typer.Option("--model", metavar="MODEL", help=MODEL_HELP)]
ModelOfIndex = Annotated[
    Path | None,
    typer.Option("--model", metavar="MODEL", help=f"{MODEL_HELP} Default: that of the index."),
]
IndexFile = Annotated[
    Path, typer.Option("--index", metavar="FILE", help="The index of people, one file.")
]
ALIGNED = "none"  # in place of a detector: photos are aligned already
_ALIGN_HELP = (
    "Photos are not aligned: find and align the largest face by uniface, or by your own "
    "package.module:function."
)
_RESIZE_HELP = "Aligned faces have another size than the model's: resize them."
Align = Annotated[
    str | None, typer.Option("--align", metavar="DETECTOR", help=f"{_ALIGN_HELP} Default: none.")
]
Resize = Annotated[bool, typer.Option("--resize", help=_RESIZE_HELP)]
AlignAsIndex = Annotated[
    str | None,
    typer.Option(
        "--align",
        metavar="DETECTOR",
        help=f"{_ALIGN_HELP} none: they are. Default: as the index began.",
    ),
]
ResizeAsIndex = Annotated[
    bool | None,
    typer.Option("--resize/--no-resize", help=f"{_RESIZE_HELP} Default: as the index began."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Images that go through the net together.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold", metavar="COSINE", help="From which on two are one person, not the model's."
    ),
]

_NUM_NAMED = 5
A_DAY = 86_400.0  # that ranks wait for the slowest of them


@dataclass(frozen=True)
class Looking:
    """How images become embeddings.

    Attributes:
        align: the detector by which photos are aligned; None: they are.
        resize: faces of another size.
        batch_size: that go through the net together.
        half: keep float16, and compute in half precision where the device is quicker in it.
    """

    align: str | None = None
    resize: bool = False
    batch_size: int = 128
    half: bool = False


def open_model(path: Path, *, device: str = "auto", checkpoint: str = "last") -> "FaceModel":
    """The model at `path`; of several ranks each takes the GPU of its number."""
    from manyface.model import load
    from manyface.train.devices import choose_device

    return load(path, device=str(choose_device(device)), checkpoint=checkpoint)


def maker_of(model: "FaceModel", path: Path) -> "Maker":
    """What an index says of the model that made it: of a run, its checkpoint, as runs go on."""
    from manyface.gallery import Maker
    from manyface.train.directory import CHECKPOINTS

    checkpoint = path / CHECKPOINTS / str(model.provenance.get("checkpoint", ""))
    place = checkpoint if checkpoint.is_dir() and (path / CHECKPOINTS) != checkpoint else path
    return Maker(model.fingerprint, model.embedding_size, str(place.resolve()), limit_of(model))


def limit_of(model: "FaceModel") -> "Limit | None":
    """The threshold of a model, if it has one."""
    from manyface.gallery import Limit

    found = model.threshold
    return None if found is None else Limit(found.value, found.far, found.measured_on)


def chosen_limit(given: float | None, known: "Limit | None") -> "Limit | None":
    """The threshold that the user has `given`, else the `known` one.

    Raises:
        DataError: it is no cosine.
    """
    from manyface.gallery import Limit

    if given is None:
        return known
    if not -1 <= given <= 1:
        raise DataError(f"--threshold is a cosine, -1 to 1, got {given:g}")
    return Limit(given)


def describe_limit(limit: "Limit") -> str:
    """In words: the cosine, and on what it was measured."""
    text = f"{limit.cosine:.3f}"
    if limit.far is None:
        return f"{text}, given"
    return f"{text}, FAR {limit.far:g} on {limit.measured_on}"


def looking_as(known: "Cropping | None", align: str | None, resize: bool | None) -> Looking:
    """What the user says, and where nothing is said what is `known` of the images of an index.

    Raises:
        ConfigError: they were aligned by a function of somebody's: a file does not get to call one.
    """
    from manyface.data.detect import KNOWN
    from manyface.gallery import Cropping

    before = known or Cropping()
    if align is None and before.align is not None:
        if before.align not in KNOWN:
            raise ConfigError(
                f"the index was made of photos that were aligned by {before.align}: say --align "
                f"{before.align} to call that, or --align {ALIGNED} for faces that are aligned"
            )
        tell(f"photos are aligned by {before.align}, as the index began (--align {ALIGNED}: not)")
    elif before.align is not None and align not in (None, ALIGNED, before.align):
        warn(f"the index began with photos that were aligned by {before.align}, not by {align}")
    if resize is None and before.resize:
        tell("faces are resized, as the index began (--no-resize: not)")
    chosen = before.align if align is None else align
    return Looking(
        align=None if chosen == ALIGNED else chosen,
        resize=before.resize if resize is None else resize,
    )


def images_at(paths: Sequence[Path]) -> "Records":
    """A set, a folder of images or image files; shows how far an index is that has to be built."""
    from manyface.data.records.loose import open_images
    from manyface.observe.counting import Counting

    with Counting(f"indexing {paths[0].name}") as progress:
        return open_images(paths, warn=warn, progress=progress)


def embedded(
    model: "FaceModel",
    records: "Records",
    folder: Path,
    looking: Looking,
    *,
    threads: int = 0,
    ranks: "Ranks | None" = None,
) -> "EmbeddedImages":
    """The embeddings of `records`, by way of parts in `folder`; shows how far they are."""
    from manyface.evaluate.embedding_pass import embed_records
    from manyface.observe.counting import Counting
    from manyface.parallel import ALONE

    reading = model.reading(
        resize=looking.resize,
        align=looking.align is not None,
        detector=looking.align or "uniface",
    )
    ranks = ranks or ALONE
    of_rank = "" if ranks.is_alone else f" (rank {ranks.rank} of {ranks.size})"
    with Counting(f"embedding {records.path.name}{of_rank}", unit="images") as progress:
        return embed_records(
            embed_function(model, half=looking.half),
            lambda data, record: reading.face(data),
            records,
            folder,
            job=_job(model, records, looking),
            options=_options(looking, threads),
            ranks=ranks,
            progress=progress if ranks.rank == 0 else lambda done, total: None,
        )


def embedded_now(
    model: "FaceModel", records: "Records", looking: Looking
) -> "tuple[FloatArray, EmbeddedImages]":
    """The embeddings of a few images, in memory; those left out are named."""
    with TemporaryDirectory(prefix="manyface-") as folder:
        found = embedded(model, records, Path(folder) / "parts", looking)
        name_left_out(found, records)
        return found.array(), found


def name_left_out(found: "EmbeddedImages", records: "Records") -> None:
    """Warn of images that could not be used: the first few by name, then their number."""
    for record, reason in found.left_out[:_NUM_NAMED]:
        warn(f"{records.describe(record)} is left out: {reason}")
    if len(found.left_out) > _NUM_NAMED:
        warn(f"{len(found.left_out)} of {len(records)} images are left out in all")


def embed_function(model: "FaceModel", *, half: bool, unit: bool = True) -> "EmbedFunction":
    """Embeddings of unit length or of any, in half precision where the device is quicker in it."""
    if not half:
        return model.embed_batch if unit else model.features
    import torch

    from manyface.evaluate import make_embed_function
    from manyface.train.devices import autocast_dtype

    on_gpu = model.device.type == "cuda"
    return make_embed_function(
        model.net,
        model.device,
        flip=model.preprocessing.flip,
        autocast=torch.float16 if on_gpu else autocast_dtype("auto", model.device),
        unit=unit,
        prepare=model.preprocessing.apply,
    )


def _job(model: "FaceModel", records: "Records", looking: Looking) -> dict[str, str]:
    """What embeddings depend on, beside the images."""
    return {
        "model": model.fingerprint,
        "set": str(records.path),
        "detector": looking.align or "none",
        "resizing": str(looking.resize),
    }


def _options(looking: Looking, threads: int) -> "PassOptions":
    from manyface.evaluate.embedding_pass import PassOptions

    return PassOptions(batch_size=looking.batch_size, half=looking.half, threads=threads)


def model_of_index(
    index: "PeopleIndex",
    path: Path,
    given: Path | None,
    *,
    device: str = "auto",
    checkpoint: str = "last",
) -> "tuple[FaceModel, Path]":
    """The model of the index at `path`, at the `given` place or where it was when it enrolled.

    Raises:
        ConfigError: it is another model, or is not there any more.
    """
    place = given or Path(index.maker.path)
    if given is None and not (index.maker.path and place.exists()):
        raise ConfigError(
            f"the model of {path} is not at {place} any more; say where it is with --model"
        )
    model = open_model(place, device=device, checkpoint=checkpoint)
    index.check_maker(maker_of(model, place), str(path))
    return model, place

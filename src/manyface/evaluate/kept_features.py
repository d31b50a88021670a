"""The features of a set, kept in files until it is judged: an evaluation that is killed goes on.

The distinct images are cut into parts of 1,024 (part_files.py). Parts of other images, another
model or another batch size are no help, and are taken away: the people and labels of all images are
compared, and the pixels of the first one of each part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from manyface.base.errors import DataError
from manyface.base.progress import Progress, no_progress
from manyface.data.records.index_file import Arrays
from manyface.data.source import ImageSource, Int64Array
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.embed import EmbedFunction, check_finite, embedded_batches
from manyface.evaluate.part_files import PartFiles, remove_parts
from manyface.parallel import ALONE, Ranks, all_or_none

BEGUN, DONE = "the job of an evaluation", "features of all ranks"
_PART = 1024


@dataclass(frozen=True)
class Kept:
    """Where features are kept.

    Attributes:
        folder: is made; `remove_parts` (part_files.py) takes it away.
        job: what features depend on beside the images, as the model's fingerprint.
    """

    folder: Path
    job: Mapping[str, str]


def embed_kept(
    embed: EmbedFunction,
    source: ImageSource,
    indices: Int64Array,
    kept: Kept,
    *,
    batch_size: int = 128,
    ranks: Ranks = ALONE,
    progress: Progress = no_progress,
) -> Float32Array:
    """As `embed_source`: features [N, D] of the images `indices` [N], by way of files.

    Of several ranks the first has them, the others get an array of none.

    Raises:
        DataError: an image cannot be used. NonFiniteError: a feature is not finite.
        WriteError: a part cannot be written.
    """
    distinct, inverse = np.unique(indices, return_inverse=True)
    work = _Work(embed, source, distinct)
    parts = PartFiles(kept.folder, len(distinct), work.stamp, batch_size, _PART)
    with all_or_none(ranks, BEGUN):
        if ranks.rank == 0:
            _begin(parts, {**kept.job, "people": work.people()})
    with all_or_none(ranks, DONE):
        parts.make(work.embedded, ranks, progress)
    if ranks.rank > 0 or not len(distinct):
        return np.zeros((0, 0), np.float32)
    parts.check()
    found: Float32Array = parts.array("features")
    is_in_order = len(distinct) == len(indices) and bool((distinct == indices).all())
    return found if is_in_order else found[inverse.reshape(-1)]


def _begin(parts: PartFiles, job: Mapping[str, str]) -> None:
    try:
        parts.begin(job)
    except DataError:  # parts of another one
        remove_parts(parts.folder)
        parts.begin(job)


@dataclass(frozen=True)
class _Work:
    embed: EmbedFunction
    source: ImageSource
    images: Int64Array  # distinct

    def embedded(self, batches: Sequence[range]) -> Iterator[Arrays]:
        """The features of each batch."""
        images = [self.images[batch.start : batch.stop] for batch in batches]
        found = embedded_batches(self.embed, self.source, images)
        for indices, rows in zip(images, found, strict=True):
            check_finite(rows, indices, self.source.name)
            yield {"features": rows}

    def stamp(self, span: range) -> str:
        """A hash of the pixels of the first image."""
        pixels = self.source.load(self.images[span.start : span.start + 1]).numpy()
        return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(pixels).data)

    def people(self) -> str:
        """A hash of the images' places and labels, and of who these are."""
        digest = xxhash.xxh3_64(self.images.tobytes())
        digest.update(self.source.labels(self.images).tobytes())
        for name in self.source.identity_names:
            digest.update(f"{name}\n".encode(errors="replace"))
        return digest.hexdigest()

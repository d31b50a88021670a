"""All images of a set through a net once, so that it can be killed anywhere and go on.

What is made lies in parts (part_files.py) until it is safe elsewhere. An image that cannot be used
is left out and named; nothing takes its place.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from manyface.base.errors import DataError, NonFiniteError
from manyface.base.progress import Progress, no_progress
from manyface.base.threads import usable_cores
from manyface.data.loader import made_ahead
from manyface.data.records import Records
from manyface.data.records.base import person_of
from manyface.data.records.index_file import Arrays
from manyface.evaluate.embed import EmbedFunction
from manyface.evaluate.part_files import PartFiles, remove_parts
from manyface.parallel import ALONE, Ranks, all_or_none

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
# An encoded image and the number of its record -> uint8 [S, S, 3] RGB; DataError says why not.
ReadFace = Callable[[bytes, int], UInt8Array]

BEGUN, DONE = "the job of an embedding pass", "parts of all ranks"


@dataclass(frozen=True)
class PassOptions:
    """How a set is embedded.

    Attributes:
        batch_size: images that go through the net together.
        half: keep float16 instead of float32.
        part_size: images of a part, the most that a kill loses.
        threads: that read and decode; 0: half of the cores.
    """

    batch_size: int = 128
    half: bool = False
    part_size: int = 1024
    threads: int = 0


class EmbeddedImages:
    """What a pass has made, in the order of the records; the embeddings stay in their files.

    Attributes:
        records: int64 [M], those that have an embedding.
        left_out: the others, and why.
        embedding_size: D.
        dtype: float32 or float16.
    """

    def __init__(self, parts: PartFiles, dtype: np.dtype[Any]) -> None:
        self._parts, self.dtype = parts, dtype
        self.records: Int64Array = parts.array("records")
        self.left_out = [item for text in parts.rows("left_out") for item in _left_out(text)]
        first = next(parts.rows("embeddings"), None)
        self.embedding_size = 0 if first is None else first.shape[1]

    def __len__(self) -> int:
        return len(self.records)

    def parts(self) -> Iterator[npt.NDArray[np.floating]]:
        """Embeddings [m, D] one after the other, each mapped from its file while it is used."""
        return self._parts.rows("embeddings")

    def array(self) -> npt.NDArray[np.floating]:
        """All embeddings in memory, [M, D] of unit length."""
        return self._parts.array("embeddings")


def embed_records(
    embed: EmbedFunction,
    read: ReadFace,
    records: Records,
    folder: Path,
    *,
    job: Mapping[str, str],
    options: PassOptions = PassOptions(),
    ranks: Ranks = ALONE,
    progress: Progress = no_progress,
) -> EmbeddedImages:
    """The embeddings of all images of `records`, by way of parts in `folder`.

    Args:
        read: makes an encoded image a face; called by several threads.
        folder: is made; `remove_parts` takes it away once the result is safe elsewhere.
        job: what else the embeddings depend on, as the model's fingerprint: parts that were made
            with another are refused.
        progress: gets this rank's images done and their number.

    Raises:
        DataError: no image can be used, or the folder holds the parts of another job.
        NonFiniteError: an embedding is not finite. WriteError: a part cannot be written.
    """
    work = _Work(embed, read, records, options)
    parts = PartFiles(folder, len(records), work.stamp, options.batch_size, options.part_size)
    with all_or_none(ranks, BEGUN):
        if ranks.rank == 0:
            parts.begin({**job, "half": str(options.half)})
    parts.make(work.embedded, ranks, progress)
    ranks.wait_for_all(DONE)
    parts.check()
    found = EmbeddedImages(parts, work.dtype)
    if not len(found):
        remove_parts(folder)  # nothing is lost, and the next try may be another job
        raise DataError(_all_bad(records, found))
    return found


@dataclass(frozen=True)
class _Work:
    embed: EmbedFunction
    read: ReadFace
    records: Records
    options: PassOptions

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float16 if self.options.half else np.float32)

    def stamp(self, span: range) -> str:
        """A hash of the names of images, and of the first one."""
        digest = xxhash.xxh3_64()
        for record in span:
            person = self.records.identity_names[person_of(self.records.first_images, record)]
            digest.update(f"{person}/{self.records.file_name(record)}\n".encode(errors="replace"))
        with suppress(DataError, OSError):  # one that is left out
            digest.update(self.records.read(span[0]))
        return digest.hexdigest()

    def embedded(self, batches: Sequence[range]) -> Iterator[Arrays]:
        """The arrays of each batch."""
        faces = made_ahead(
            self._face,
            self._announced(batches),
            prefetch=2 * self.options.batch_size,
            workers=self.options.threads or max(1, usable_cores() // 2),
        )
        for batch in batches:
            yield self._arrays(batch, list(islice(faces, len(batch))))

    def _announced(self, batches: Sequence[range]) -> Iterator[int]:
        """All records, those of a batch hinted at before the first of them is asked for."""
        for batch in batches:
            self.records.will_read(np.array(batch))
            yield from batch

    def _face(self, record: int) -> UInt8Array | str:
        """The face, uint8 [S, S, 3], or why there is none."""
        try:
            return self.read(self.records.read(record), record)
        except DataError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _arrays(self, batch: range, faces: list[UInt8Array | str]) -> Arrays:
        both = list(zip(batch, faces, strict=True))
        good = [(record, face) for record, face in both if not isinstance(face, str)]
        bad = [(record, face) for record, face in both if isinstance(face, str)]
        lines = "".join(f"{record}\t{' '.join(reason.split())}\n" for record, reason in bad)
        return {
            "embeddings": self._embeddings(good),
            "records": np.array([record for record, _ in good], np.int64),
            "left_out": np.frombuffer(os.fsencode(lines), np.uint8),
        }

    def _embeddings(self, good: list[tuple[int, UInt8Array]]) -> npt.NDArray[np.floating]:
        if not good:
            return np.zeros((0, 0), self.dtype)
        images = torch.from_numpy(np.stack([face for _, face in good]))  # [b, S, S, 3]
        found = self.embed(images).numpy()
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(wrong):
            raise NonFiniteError(
                f"the embedding of {self.records.describe(good[int(wrong[0])][0])} is not finite: "
                "the network's weights or activations overflow"
            )
        return found.astype(self.dtype, copy=False)


def _all_bad(records: Records, found: EmbeddedImages) -> str:
    text = f"none of the {len(records)} images of {records.path} can be used"
    if not found.left_out:
        return text
    record, reason = found.left_out[0]
    return f"{text}; first: {records.describe(record)}: {reason}"


def _left_out(text: UInt8Array) -> Iterator[tuple[int, str]]:
    for line in os.fsdecode(text.tobytes()).splitlines():
        record, _, reason = line.partition("\t")
        yield int(record), reason

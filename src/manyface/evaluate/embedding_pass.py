"""All images of a set through a net once, so that it can be killed anywhere and go on.

The images are cut into parts of `part_size`; each part is one file in a folder beside the target,
written under another name and renamed. Who comes next makes the parts that are not there: after a
kill, on other ranks, on more or fewer of them. A batch never reaches over the end of a part, so
what a net sees together depends on nothing else, and neither does a bit of the result.

Ranks take turns at parts and need a file system in common, as checkpoints do. An image that cannot
be used is left out and named; nothing takes its place.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from manyface.base.errors import DataError, NonFiniteError, WriteError
from manyface.base.files import new_file
from manyface.base.threads import usable_cores
from manyface.data.loader import made_ahead
from manyface.data.records import Records
from manyface.data.records.base import person_of
from manyface.data.records.index_file import Arrays, map_arrays, write_arrays, wrong_hash
from manyface.data.records.table import StringTable
from manyface.evaluate.embed import EmbedFunction
from manyface.parallel import ALONE, Ranks, all_or_none

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
# An encoded image and the number of its record -> uint8 [S, S, 3] RGB; DataError says why not.
ReadFace = Callable[[bytes, int], UInt8Array]

BEGUN, DONE = "the job of an embedding pass", "parts of all ranks"
_JOB, _VERSION, _SUFFIX = "job.json", 1, ".part"


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

    Args:
        parts: all arrays of each part, one at a time, as each holds its file open.
        paths: of their files.

    Attributes:
        records: int64 [M], those that have an embedding.
        left_out: the others, and why.
        embedding_size: D.
        dtype: float32 or float16.
    """

    def __init__(
        self, parts: Iterable[Arrays], paths: Sequence[Path], dtype: np.dtype[Any]
    ) -> None:
        self._paths, self.dtype, self.embedding_size = paths, dtype, 0
        self.left_out: list[tuple[int, str]] = []
        records: list[Int64Array] = []
        for part in parts:
            records.append(part["records"].copy())
            self.left_out += _left_out(part)
            self.embedding_size = self.embedding_size or part["embeddings"].shape[1]
        self.records: Int64Array = np.concatenate(records)

    def __len__(self) -> int:
        return len(self.records)

    def parts(self) -> Iterator[npt.NDArray[np.floating]]:
        """Embeddings [m, D] one after the other, each mapped from its file while it is used."""
        for path in self._paths:
            embeddings = map_arrays(path)[0]["embeddings"]
            if len(embeddings):
                yield embeddings

    def array(self) -> npt.NDArray[np.floating]:
        """All embeddings in memory, [M, D] of unit length."""
        found = np.empty((len(self), self.embedding_size), self.dtype)
        done = 0
        for part in self.parts():
            found[done : done + len(part)] = part
            done += len(part)
        return found


def embed_records(
    embed: EmbedFunction,
    read: ReadFace,
    records: Records,
    folder: Path,
    *,
    job: Mapping[str, str],
    options: PassOptions = PassOptions(),
    ranks: Ranks = ALONE,
    progress: Callable[[int, int], None] = lambda done, total: None,
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
    whole_job = {**job, **_facts(records, options)}
    work = _Work(embed, read, records, folder, options)
    try:
        with all_or_none(ranks, BEGUN):
            if ranks.rank == 0:
                _begin(folder, whole_job)
        work.make(work.numbers()[ranks.rank :: ranks.size], progress)
    except OSError as error:
        raise WriteError(error.filename or folder, error) from error
    ranks.wait_for_all(DONE)
    numbers = work.numbers()
    parts, paths = map(work.finished, numbers), [work.path(number) for number in numbers]
    found = EmbeddedImages(parts, paths, work.dtype)
    if not len(found):
        remove_parts(folder)  # nothing is lost, and the next try may be another job
        raise DataError(_all_bad(records, found))
    return found


def parts_folder(target: Path) -> Path:
    """Where the parts of `target` are made."""
    return target.with_name(target.name + ".parts")


def remove_parts(folder: Path) -> None:
    """Their embeddings are safe elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Work:
    embed: EmbedFunction
    read: ReadFace
    records: Records
    folder: Path
    options: PassOptions

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float16 if self.options.half else np.float32)

    def numbers(self) -> list[int]:
        return list(range(-(-len(self.records) // self.options.part_size)))

    def span(self, number: int) -> range:
        first = number * self.options.part_size
        return range(first, min(first + self.options.part_size, len(self.records)))

    def make(self, numbers: Sequence[int], progress: Callable[[int, int], None]) -> None:
        """Those of the parts that are not there."""
        missing = [number for number in numbers if self.opened(number) is None]
        total = sum(len(self.span(number)) for number in numbers)
        done = total - sum(len(self.span(number)) for number in missing)
        if missing:
            progress(done, total)
        threads = self.options.threads or max(1, usable_cores() // 2)
        faces = made_ahead(
            self._face,
            chain.from_iterable(self.span(number) for number in missing),
            prefetch=2 * self.options.batch_size,
            workers=threads,
        )
        for number in missing:
            self.records.will_read(np.array(self.span(number)))
            batches = []
            for start in range(0, len(self.span(number)), self.options.batch_size):
                span = self.span(number)[start : start + self.options.batch_size]
                batches.append(self._embedded(span, list(islice(faces, len(span)))))
                done += len(span)
                progress(done, total)
            self._write(number, batches)

    def finished(self, number: int) -> Arrays:
        """The arrays of a part; DataError if it is not there."""
        arrays = self.opened(number)
        if arrays is None:
            raise DataError(
                f"{self.path(number)} is missing or damaged: ranks need a common file system; "
                "give the same command again to make what is missing"
            )
        return arrays

    def opened(self, number: int) -> Arrays | None:
        """The arrays of a part that is whole and of these images, mapped; else None.

        DataError if there is a file that cannot be read.
        """
        try:
            arrays, notes = map_arrays(self.path(number))
            if json.loads(notes["hashes"]).keys() != arrays.keys() or wrong_hash(arrays, notes):
                return None
            return arrays if notes["images"] == self._images(number) else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"cannot read {self.path(number)}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def path(self, number: int) -> Path:
        return self.folder / f"{number:08d}{_SUFFIX}"

    def _images(self, number: int) -> str:
        """A hash of the names of the part's images."""
        digest = xxhash.xxh3_64()
        for record in self.span(number):
            person = self.records.identity_names[person_of(self.records.first_images, record)]
            digest.update(f"{person}/{self.records.file_name(record)}\n".encode(errors="replace"))
        return digest.hexdigest()

    def _face(self, record: int) -> UInt8Array | str:
        """The face, uint8 [S, S, 3], or why there is none."""
        try:
            return self.read(self.records.read(record), record)
        except DataError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _embedded(self, span: range, faces: list[UInt8Array | str]) -> Arrays:
        """Arrays of a batch."""
        good = [(record, face) for record, face in zip(span, faces, strict=True)
                if not isinstance(face, str)]  # fmt: skip
        bad = [(record, face) for record, face in zip(span, faces, strict=True)
               if isinstance(face, str)]  # fmt: skip
        reasons = StringTable(f"{record}\t{' '.join(reason.split())}" for record, reason in bad)
        return {
            "embeddings": self._embeddings(good),
            "records": np.array([record for record, _ in good], np.int64),
            **reasons.parts("left_out"),
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

    def _write(self, number: int, batches: list[Arrays]) -> None:
        made = [batch["embeddings"] for batch in batches if len(batch["embeddings"])]
        reasons = [text for batch in batches for text in _table(batch)]
        arrays: Arrays = {
            "embeddings": np.concatenate(made) if made else np.zeros((0, 0), self.dtype),
            "records": np.concatenate([batch["records"] for batch in batches]),
            **StringTable(reasons).parts("left_out"),
        }
        with new_file(self.path(number)) as file:
            write_arrays(file, arrays, {"images": self._images(number)})


def _all_bad(records: Records, found: EmbeddedImages) -> str:
    text = f"none of the {len(records)} images of {records.path} can be used"
    if not found.left_out:
        return text
    record, reason = found.left_out[0]
    return f"{text}; first: {records.describe(record)}: {reason}"


def _facts(records: Records, options: PassOptions) -> dict[str, str]:
    """What the parts depend on, beside the job."""
    chosen = asdict(options)
    del chosen["threads"]
    return {
        "images": str(len(records)),
        **{name.replace("_", " "): str(value) for name, value in chosen.items()},
    }


def _begin(folder: Path, job: dict[str, str]) -> None:
    """`folder` holds parts of this job, or none yet."""
    path = folder / _JOB
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if others := [each.name for each in folder.iterdir() if not each.name.startswith(".")]:
            raise DataError(f"{folder} holds other files ({others[0]}); choose another target")
        with new_file(path) as file:
            file.write(json.dumps({"version": _VERSION, "job": job}, indent=2).encode())
        return
    try:
        begun = json.loads(path.read_bytes())["job"]
        different = [name for name in job if begun.get(name) != job[name]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove {folder}") from None
    if different:
        raise DataError(
            f"{folder} was begun with another {' and '.join(different)}; finish that with the same "
            "command, or remove that folder"
        )


def _table(arrays: Arrays) -> StringTable:
    return StringTable.from_parts(arrays["left_out.text"], arrays["left_out.ends"])


def _left_out(arrays: Arrays) -> Iterator[tuple[int, str]]:
    for line in _table(arrays):
        record, _, reason = line.partition("\t")
        yield int(record), reason

"""Files of embeddings: what `manyface embed` writes, by streaming from the parts of a pass.

    faces.safetensors   embeddings, labels, names of people and images, the model (docs/formats)
    faces.npy           embeddings alone, with faces.tsv: image, TAB, person, line by line
    faces.left_out.tsv  images without an embedding: name, TAB, reason; only where there are any

A file gets its name when it is complete and forced to disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import ConfigError, DataError, WriteError
from manyface.base.files import new_file
from manyface.data.records import Records, labels_of
from manyface.data.records.base import person_of
from manyface.data.records.index_file import Parts, map_arrays, write_arrays, wrong_hash
from manyface.data.records.table import StringTable
from manyface.evaluate.embedding_pass import EmbeddedImages

FORMAT = "manyface-embeddings-1"
FORMATS = ("safetensors", "npy")
LEFT_OUT = ".left_out.tsv"


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """What a file of embeddings holds.

    Attributes:
        embeddings: float32 or float16 [N, D] of unit length, mapped.
        labels: int64 [N], in [0, len(names)).
        names: of the people.
        images: name of each image.
        notes: the model (`model`, `fingerprint`) and the set (`source`).
    """

    embeddings: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int64]
    names: Sequence[str]
    images: Sequence[str]
    notes: Mapping[str, str]


def image_name(records: Records, record: int) -> str:
    """How lists call an image: its person, if it has one, and its file name."""
    person = records.identity_names[person_of(records.first_images, record)]
    return f"{person}/{records.file_name(record)}" if person else records.file_name(record)


def checked_format(path: Path, form: str) -> str:
    """`form`, if it is one of FORMATS and fits the suffix of `path`; ConfigError else."""
    if form not in FORMATS:
        raise ConfigError(f"--format is one of {', '.join(FORMATS)}, got {form!r}")
    if path.suffix != f".{form}":
        raise ConfigError(f"{path}: a file of format {form} is called {path.stem}.{form}")
    return form


def write_embeddings(
    path: Path, found: EmbeddedImages, records: Records, notes: Mapping[str, str], *, form: str
) -> list[Path]:
    """Write the file `path` and what belongs to it; returns all that were written.

    Raises:
        WriteError: one cannot be.
    """
    try:
        if form == "npy":
            written = [_write_lines(path, found, records), _write_npy(path, found)]
        else:
            written = [_write_safetensors(path, found, records, notes)]
        return [*written, *_write_left_out(path, found, records)]
    except OSError as error:
        raise WriteError(path, error) from error


def read_embeddings(path: Path) -> EmbeddingFile:
    """The file that `write_embeddings` made, in the format safetensors; all bytes are checked.

    Raises:
        DataError: it is none, or damaged.
    """
    try:
        arrays, notes = map_arrays(path)
        if notes.get("format") != FORMAT:
            raise ValueError(f"expected {FORMAT}, got {notes.get('format')!r}")
        if (name := wrong_hash(arrays, notes)) is not None:
            raise ValueError(f"its {name} are damaged")
        names, images = (
            StringTable.from_parts(arrays[f"{each}.text"], arrays[f"{each}.ends"])
            for each in ("people", "images")
        )
        embeddings, labels = arrays["embeddings"], arrays["labels"]
        if not len(embeddings) == len(labels) == len(images):
            raise ValueError("its arrays do not fit")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path} is no file of embeddings, or damaged: {error}") from None
    return EmbeddingFile(embeddings, labels, names, images, notes)


def _write_safetensors(
    path: Path, found: EmbeddedImages, records: Records, notes: Mapping[str, str]
) -> Path:
    images = StringTable(records.file_name(record) for record in found.records.tolist())
    shape = (len(found), found.embedding_size)
    arrays: dict[str, npt.NDArray[Any] | Parts] = {
        "embeddings": Parts(shape, found.dtype, found.parts),
        "labels": labels_of(records.first_images, found.records),
        **StringTable(records.identity_names).parts("people"),
        **images.parts("images"),
    }
    with new_file(path) as file:
        write_arrays(file, arrays, {"format": FORMAT, **notes})
    return path


def _write_npy(path: Path, found: EmbeddedImages) -> Path:
    header = {
        "descr": np.lib.format.dtype_to_descr(found.dtype),
        "fortran_order": False,
        "shape": (len(found), found.embedding_size),
    }
    with new_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in found.parts():
            file.write(np.ascontiguousarray(part).data)
    return path


def _write_lines(path: Path, found: EmbeddedImages, records: Records) -> Path:
    beside = path.with_suffix(".tsv")
    labels = labels_of(records.first_images, found.records).tolist()
    with new_file(beside) as file:
        for record, label in zip(found.records.tolist(), labels, strict=True):
            line = f"{_field(records.file_name(record))}\t{_field(records.identity_names[label])}\n"
            file.write(line.encode(errors="backslashreplace"))
    return beside


def _write_left_out(path: Path, found: EmbeddedImages, records: Records) -> list[Path]:
    beside = path.with_suffix(LEFT_OUT)
    if not found.left_out:
        beside.unlink(missing_ok=True)  # of an earlier set
        return []
    with new_file(beside) as file:
        for record, reason in found.left_out:
            line = f"{_field(image_name(records, record))}\t{_field(reason)}\n"
            file.write(line.encode(errors="backslashreplace"))
    return [beside]


def _field(text: str) -> str:
    """On one line, without TAB."""
    return " ".join(text.split())

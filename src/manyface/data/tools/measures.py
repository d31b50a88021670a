"""What is known of a set before it is copied: its bytes, how wide its images are, which it is."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from manyface.base.permutation import Permutation
from manyface.data.decode import UnreadableImageError
from manyface.data.image_header import read_header
from manyface.data.records import IndexedRecords, Records
from manyface.data.records.base import GroupedRecords
from manyface.data.records.store import Int64Array, fingerprint_of

_SAMPLE = 1000


def total_bytes(records: Records) -> int:
    """Of all images; where the index does not know, estimated from a sample."""
    if isinstance(records, IndexedRecords) and records.index.sizes.min() > 0:
        return int(records.index.sizes.sum(dtype=np.int64))
    chosen = Permutation(len(records), seed=0)(np.arange(min(_SAMPLE, len(records))))
    sizes = [len(image) for image in _readable(records, chosen)]
    return round(float(np.mean(sizes)) * len(records)) if sizes else 0


def _readable(records: Records, numbers: Int64Array) -> Iterator[bytes]:
    for number in numbers.tolist():
        try:
            yield records.read(number)
        except OSError:
            continue


def width_of_images(records: Records) -> int:
    """Width of the first image that has one, for what insightface calls `property`."""
    for image in _readable(records, np.arange(min(_SAMPLE, len(records)))):
        try:
            return read_header(image).width
        except UnreadableImageError:
            continue
    return 112


def fingerprint(records: Records) -> str:
    """Changes when the records do: their people, names and, where they have one, their file."""
    text = xxhash.xxh3_128()
    text.update(np.ascontiguousarray(records.first_images).view(np.uint8).data)
    for name in records.identity_names:
        text.update(os.fsencode(name) + b"\0")
    if not isinstance(records, IndexedRecords):
        for record in range(len(records)):
            text.update(os.fsencode(records.file_name(record)) + b"\0")
    for facts in _files_of(records):
        text.update(os.fsencode(facts) + b"\0")
    return text.hexdigest()


def _files_of(records: Records) -> Iterator[str]:
    """What is known of the files of a set, or of all those that it is a view of."""
    sources = records.sources if isinstance(records, GroupedRecords) else []
    if isinstance(records, IndexedRecords):
        yield records.store.fingerprint()
    elif not sources and isinstance(records.path, Path) and records.path.is_file():
        yield fingerprint_of([records.path])
    for source in sources:
        yield from _files_of(source)

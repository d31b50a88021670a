"""What can be wrong with labels, identities and the files around the records.

All of it follows from the index and from small files; no image is read.
"""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np

from manyface.base.progress import Progress
from manyface.data.records import FolderRecords, IndexedRecords, ListRecords, Records
from manyface.data.records.index import RecordIndex
from manyface.data.records.naming import is_hidden, is_image_name
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.recordio_frames import LARGEST_LABEL
from manyface.data.records.store import Int64Array
from manyface.data.tools.defects import Cases


def check_labels(records: Records, cases: Cases, progress: Progress) -> None:
    """Everything of this file."""
    _check_singles(records, cases)
    if isinstance(records, IndexedRecords):
        records.index.verify()
        _add_faults(records.index, cases)
        if records.index.numbers is not None:
            _check_gaps(records.index.numbers, cases)
        if isinstance(records.store, RecordIOStore):
            _check_recordio(records, records.store, cases, progress)
    elif isinstance(records, ListRecords):
        numbers = _as_numbers(records)
        if numbers is not None:
            _check_gaps(numbers, cases)
    elif isinstance(records, FolderRecords):
        for folder in _empty_folders(Path(records.path)):
            cases.add_identity("identity-empty", folder)


def _check_singles(records: Records, cases: Cases) -> None:
    for person in np.flatnonzero(np.diff(records.first_images) == 1).tolist():
        cases.add_identity("identity-single", records.identity_names[person])


def _add_faults(index: RecordIndex, cases: Cases) -> None:
    """What the scan had to leave out; beyond the first thousand only their number is known."""
    for kind, text in zip(index.fault_kinds, index.faults, strict=True):
        cases.add_file(kind, text)
    for kind, count in index.fault_counts.items():
        cases.add_uncounted(kind, count - index.fault_kinds.count(kind))


def _check_gaps(numbers: Int64Array, cases: Cases) -> None:
    """`numbers`: the labels that are there, ascending."""
    for before, after in pairwise([-1, *numbers.tolist()]):
        if after > before + 1:
            missing = f"{before + 1}" if after == before + 2 else f"{before + 1} to {after - 1}"
            cases.add_file("label-gap", f"nobody has label {missing}")


def _check_recordio(
    records: IndexedRecords, store: RecordIOStore, cases: Cases, progress: Progress
) -> None:
    numbers = records.index.numbers
    if numbers is not None:
        for number in numbers[numbers > LARGEST_LABEL].tolist():
            cases.add_identity(
                "label-float32",
                str(number),
                f"above {LARGEST_LABEL} neighbours are one number: this may be two people",
            )
    if unlisted := store.unlisted(progress):
        cases.add_file("index-file", f"{store.index_file.name} misses {unlisted} records")
    _check_headers(json.loads(records.index.notes.get("headers", '{"count": 0}')), records, cases)
    _check_property(store.index_file.with_name("property"), records, cases)


def _check_headers(facts: dict[str, int | None], records: IndexedRecords, cases: Cases) -> None:
    """insightface's records without image (RecordIOStore) against what there is."""
    if not facts["count"]:
        return
    photos, images = facts["photos"], len(records) + records.index.num_faults
    if photos is None:
        cases.add_file("header", f"{facts['count']} records without image, and none has number 0")
        return
    if photos != images:
        cases.add_file("header", f"record 0 names {photos} photos; there are {images}")
    misplaced, empty = facts["misplaced"] or 0, facts["empty"] or 0
    present = facts["count"] - 1 - misplaced
    if facts["identities"] != present:
        cases.add_file("header", f"record 0 names {facts['identities']} identities, not {present}")
    if misplaced:
        cases.add_file("header", f"{misplaced} records without image where photos belong")
    if empty:
        cases.add_file("identity-empty", f"{empty} identities, by the header records")


def _check_property(path: Path, records: Records, cases: Cases) -> None:
    """insightface's `property`: classes, height, width; of several sets in a folder it has one."""
    if len(list(path.parent.glob("*.rec"))) > 1:
        return
    try:
        classes = int(path.read_text().split(",")[0])
    except (OSError, ValueError):
        return
    missing = classes - len(records.identity_names)
    if missing > 0:
        cases.add_file(
            "identity-empty", f"{path.name} names {classes} identities, {missing} have no image"
        )


def _as_numbers(records: Records) -> Int64Array | None:
    names = records.identity_names
    if not all(name.isdecimal() and len(name) < 19 for name in names):
        return None
    return np.unique(np.array([int(name) for name in names], np.int64))


def _empty_folders(root: Path) -> list[str]:
    """Folders that hold neither images nor folders, relative to `root`."""
    found = []
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not is_hidden(name))
        images = any(is_image_name(name) and not is_hidden(name) for name in files)
        if not inner and not images and folder != str(root):
            found.append(os.path.relpath(folder, root))
    return found

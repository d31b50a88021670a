"""One folder of images and a list that says whose they are, as Paddle packs its sets, and others.

    set/label.txt           images/0001.jpg<TAB>17
    set/images/0001.jpg

By folders that is one person, with which nothing can be trained, so the list decides, where there
is one that names every image. Images that it does not name are left out only if it names most.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.base import (
    GroupedRecords,
    Int64Array,
    Records,
    RecordsView,
    Warn,
    person_of,
)
from manyface.data.records.listfile import sorted_labels, split_line

_LIST_NAME = re.compile(r"\.(txt|tsv|lst|list|csv)$", re.IGNORECASE)
_NAMED_SHARE = 0.5


class RelabelledRecords(RecordsView):
    """The records `order` (int64 [n]) of `full`, whose people are `names`, `counts` images each."""

    def __init__(
        self, full: Records, *, order: Int64Array, names: Sequence[str], counts: Sequence[int]
    ) -> None:
        super().__init__(full, identity_names=names, images_per_identity=counts)
        self._order = order

    @property
    def index_bytes(self) -> int:
        return self._order.nbytes + self.first_images.nbytes

    def _place(self, index: int) -> int:
        return int(self._order[index])


def by_list_inside(records: GroupedRecords, *, warn: Warn) -> GroupedRecords:
    """`records` by a list that came with them, if they are one person's by folder and it fits."""
    if len(records.identity_names) > 1:
        _warn_of_lists(records, warn)
        return records
    for name, labels in _lists_inside(records, parts=1):
        found = [labels.get(records.file_name(i)) for i in range(len(records))]
        named = [i for i, label in enumerate(found) if label is not None]
        if len(named) > _NAMED_SHARE * len(records):
            if len(named) < len(records):
                warn(f"{records.path}: {len(records) - len(named)} images are not in {name}")
            return _grouped(records, named, [str(found[i]) for i in named])
    return records


def _lists_inside(records: GroupedRecords, *, parts: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Lists of images and labels that came with the records: name, and label by the last `parts`
    of each path."""
    for name in sorted(filter(_LIST_NAME.search, records.text_names())):
        try:
            yield name, _labels_of_files(records.read_text(name), parts)
        except DataError:
            continue


def _warn_of_lists(records: GroupedRecords, warn: Warn) -> None:
    """Folders decide who is who; say so if a list beside them has other labels."""
    looked_at = (0, len(records) // 2, len(records) - 1) if len(records) else ()
    for name, labels in _lists_inside(records, parts=2):
        for record in looked_at:
            folder = records.identity_names[person_of(records.first_images, record)]
            path = f"{folder}/{records.file_name(record)}"
            label = labels.get(path)
            if label is not None and label != folder:
                warn(
                    f"{records.path}: folders are taken for people, and {name}, by which "
                    f"{path} is of {label!r} and not of {folder!r}, is not "
                    f"used; to use it, give the path of that list"
                )
                break


def _grouped(records: Records, named: list[int], labels: list[str]) -> RelabelledRecords:
    images_of: dict[str, list[int]] = {}
    for record, label in zip(named, labels, strict=True):
        images_of.setdefault(label, []).append(record)
    names = sorted_labels(images_of)
    order = [record for name in names for record in images_of[name]]
    counts = [len(images_of[name]) for name in names]
    return RelabelledRecords(records, order=np.array(order, np.int64), names=names, counts=counts)


def _labels_of_files(text: str, parts: int) -> dict[str, str]:
    """Last `parts` of a path -> label, of lines of both; empty if it is no such list."""
    labels: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        path, *rest = split_line(line)
        name = "/".join(path.split("/")[-parts:])
        if len(rest) != 1 or labels.setdefault(name, rest[0]) != rest[0]:
            return {}
    return labels

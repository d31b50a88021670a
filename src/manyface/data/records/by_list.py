"""One folder of images and a list that says whose they are, as Paddle packs its sets, and others.

    set/label.txt           images/0001.jpg<TAB>17
    set/images/0001.jpg

By folders that is one person, with which nothing can be trained, so the list decides, where there
is one that names every image. Images that it does not name are left out only if it names most.
"""

import re
from collections.abc import Sequence

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.base import GroupedRecords, Int64Array, Records, Warn
from manyface.data.records.listfile import sorted_labels

_LIST_NAME = re.compile(r"\.(txt|tsv|lst|list|csv)$", re.IGNORECASE)
_NAMED_SHARE = 0.5


class RelabelledRecords(GroupedRecords):
    """The records `order` (int64 [n]) of `full`, whose people are `names`, `counts` images each."""

    def __init__(
        self, full: Records, *, order: Int64Array, names: Sequence[str], counts: Sequence[int]
    ) -> None:
        super().__init__(full.path, identity_names=names, images_per_identity=counts)
        self._full, self._order = full, order

    def read(self, index: int) -> bytes:
        return self._full.read(int(self._order[index]))

    def file_name(self, index: int) -> str:
        return self._full.file_name(int(self._order[index]))

    def describe(self, index: int) -> str:
        return self._full.describe(int(self._order[index]))

    def read_text(self, name: str) -> str:
        return self._full.read_text(name)

    @property
    def sources(self) -> Sequence[Records]:
        return [self._full]

    @property
    def index_bytes(self) -> int:
        return self._order.nbytes + self.first_images.nbytes


def by_list_inside(records: Records, texts: Sequence[str], *, warn: Warn) -> Records:
    """`records` by the list among `texts`, if they are one person's by folder and a list fits."""
    if len(records.identity_names) > 1:
        return records
    for name in sorted(filter(_LIST_NAME.search, texts)):
        try:
            labels = _labels_of_files(records.read_text(name))
        except DataError:
            continue
        found = [labels.get(records.file_name(i)) for i in range(len(records))]
        named = [i for i, label in enumerate(found) if label is not None]
        if len(named) > _NAMED_SHARE * len(records):
            if len(named) < len(records):
                warn(f"{records.path}: {len(records) - len(named)} images are not in {name}")
            return _grouped(records, named, [str(found[i]) for i in named])
    return records


def _grouped(records: Records, named: list[int], labels: list[str]) -> RelabelledRecords:
    images_of: dict[str, list[int]] = {}
    for record, label in zip(named, labels, strict=True):
        images_of.setdefault(label, []).append(record)
    names = sorted_labels(images_of)
    order = [record for name in names for record in images_of[name]]
    counts = [len(images_of[name]) for name in names]
    return RelabelledRecords(records, order=np.array(order, np.int64), names=names, counts=counts)


def _labels_of_files(text: str) -> dict[str, str]:
    """File name -> label, of lines of a path and a label; empty if it is no such list."""
    labels: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        parts = line.split("\t") if "\t" in line else line.rsplit(maxsplit=1)
        if len(parts) != 2 or labels.setdefault(parts[0].rpartition("/")[2], parts[1]) != parts[1]:
            return {}
    return labels

"""The kinds of things that `manyface data check` finds, and what is done with the cases.

Severity: an *error* makes the record useless or poisons the training, a *warning* wants a look, a
*note* is said and nothing more. Records of some kinds are left out by the keep-list.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from manyface.data.records import Records, labels_of
from manyface.data.records.kept import escaped

ERROR, WARNING, NOTE = "error", "warning", "note"
COLUMNS = ("kind", "severity", "record", "identity", "where", "detail")
_NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Kind:
    """One kind of defect; `drops`: the keep-list leaves its records out."""

    severity: str
    drops: bool
    meaning: str


KINDS = {
    # one record
    "empty": Kind(ERROR, True, "record of no bytes"),
    "unreadable": Kind(ERROR, True, "record that the file system does not give"),
    "damaged": Kind(ERROR, True, "bytes that do not match their checksum"),
    "broken": Kind(ERROR, True, "no image, or one that cannot be decoded"),
    "truncated": Kind(ERROR, True, "image that ends too early; decoders fill the rest with grey"),
    "huge": Kind(ERROR, True, "image that claims too many pixels"),
    "constant": Kind(ERROR, True, "image of one colour"),
    "odd-bytes": Kind(WARNING, False, "JPEG with bytes that belong to nothing: perhaps damaged"),
    "wrong-size": Kind(WARNING, False, "image of another size than the set has"),
    "not-rgb": Kind(NOTE, False, "image that is grey, CMYK or transparent"),
    "trailing": Kind(NOTE, False, "bytes after the end of the image"),
    # several records
    "duplicate-within": Kind(WARNING, True, "same bytes twice in one identity"),
    "duplicate-across": Kind(ERROR, True, "same bytes in two identities: one of them is wrong"),
    "same-pixels-within": Kind(WARNING, True, "same pixels twice in one identity"),
    "same-pixels-across": Kind(ERROR, True, "same pixels in two identities: one of them is wrong"),
    "near-within": Kind(NOTE, False, "nearly the same picture twice in one identity"),
    "near-across": Kind(WARNING, False, "nearly the same picture in two identities"),
    # labels and identities
    "label": Kind(ERROR, False, "label that is fractional, negative or no number; left out"),
    "label-float32": Kind(ERROR, False, "label that a float32 cannot hold for certain"),
    "label-gap": Kind(WARNING, False, "labels that nobody has"),
    "identity-empty": Kind(WARNING, False, "identity without an image"),
    "identity-single": Kind(NOTE, False, "identity with a single image"),
    # files
    "header": Kind(WARNING, False, "header records that are missing, odd or out of place"),
    "index-file": Kind(WARNING, False, "index file that does not fit, or not all of it"),
    "left-out": Kind(ERROR, False, "stretch of the file that holds no record"),
}


class Cases:
    """Counts what is found, keeps the first examples, writes every case to a file.

    Args:
        records: whose records are numbered.
        report: gets one line for each case, TAB between COLUMNS; None writes nothing.
        also_dropped: kinds whose records are left out beside those that KINDS says.
    """

    def __init__(
        self, records: Records, *, report: TextIO | None = None, also_dropped: Collection[str] = ()
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.dropped: set[int] = set()
        self._records, self._report = records, report
        self._dropped_kinds = {kind for kind, about in KINDS.items() if about.drops}
        self._dropped_kinds |= set(also_dropped)
        if report is not None:
            report.write("\t".join(COLUMNS) + "\n")

    def add_record(self, kind: str, record: int, detail: str = "") -> None:
        """A case of one record, by its number."""
        person = int(labels_of(self._records.first_images, np.array([record]))[0])
        self._drop(kind, [record])
        name = self._records.identity_names[person]
        self._add(kind, str(record), name, self.name(record), detail)

    def add_identity(self, kind: str, identity: str, detail: str = "") -> None:
        """A case of an identity, by its name."""
        self._add(kind, "", identity, "", detail)

    def add_file(self, kind: str, detail: str) -> None:
        """A case of the set's files."""
        self._add(kind, "", "", str(self._records.path), detail)

    def add_uncounted(self, kind: str, count: int) -> None:
        """`count` more cases of which no more is known."""
        self.counts[kind] += count

    def add_untold(self, kind: str, records: Collection[int]) -> None:
        """More cases like those before: counted and left out, without a line for each."""
        if records:
            self._drop(kind, records)
            self.add_uncounted(kind, len(records))

    def name(self, record: int) -> str:
        """Where a record lies, without the path of the set."""
        return self._records.describe(record).removeprefix(str(self._records.path)).lstrip(":/ ")

    @property
    def num_defects(self) -> int:
        """Errors and warnings."""
        return sum(n for kind, n in self.counts.items() if KINDS[kind].severity != NOTE)

    def _drop(self, kind: str, records: Collection[int]) -> None:
        if kind in self._dropped_kinds:
            self.dropped.update(records)

    def _add(self, kind: str, record: str, identity: str, where: str, detail: str) -> None:
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _NUM_EXAMPLES:
            place = where if record or not identity else f"identity {identity}"
            examples.append(f"{place}: {detail}" if detail else place)
        if self._report is not None:
            row = (kind, KINDS[kind].severity, record, identity, where, detail)
            self._report.write("\t".join(map(escaped, row)) + "\n")

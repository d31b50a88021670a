"""`manyface data check`: every record of a set read, decoded and compared with all others.

Nothing of the set is changed. One thing is learned on the way and kept: the checksums of the bytes
go into the index, so that damage from then on is noticed by whoever reads the set. Those of records
that could not be read stay unknown (0), for the next check to find out.

Memory: per record 4 bytes for its checksum, 4 for its size, 16 for its fingerprint, 1 for whether
it has one: 2.5 GB for 100 million records. While duplicates are searched it is 120 in all (measured
at 4 million): 12 GB. Cases are counted, and written to the report as they come; the numbers of
records to be left out are kept.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, TextIO

import numpy as np

from manyface.base.progress import Progress
from manyface.base.threads import usable_cores
from manyface.data.decode import MAX_PIXELS
from manyface.data.records import IndexedRecords, Records
from manyface.data.records.index import keep_index
from manyface.data.records.store import Int64Array
from manyface.data.tools.defects import Cases
from manyface.data.tools.duplicates import Pictures, find_duplicates
from manyface.data.tools.labels import check_labels
from manyface.data.tools.looking import Look, as_code, from_code, look_at
from manyface.data.tools.reading import chunks_of, in_storage_order, mapped

_MAJORITY = 0.5


class Show(Protocol):
    """Makes the display of one part of the work, by its name."""

    def __call__(self, name: str) -> Progress: ...


@dataclass(frozen=True)
class CheckOptions:
    """What is asked of a check.

    Attributes:
        size: (width, height) that every image should have; None: that of most of them.
        threads: that read and decode; 0: one per core.
        max_pixels: larger images are not decoded.
        duplicates: search for pictures that are there twice.
        also_dropped: kinds whose records the keep-list leaves out too.
        keep_checksums: put them into the index.
    """

    size: tuple[int, int] | None = None
    threads: int = 0
    max_pixels: int = MAX_PIXELS
    duplicates: bool = True
    also_dropped: Collection[str] = ()
    keep_checksums: bool = True


def check_records(
    records: Records, options: CheckOptions, *, show: Show, report: TextIO | None = None
) -> Cases:
    """Look at everything in `records`; every case goes to `report` as a line."""
    threads = options.threads or usable_cores()
    cases = Cases(records, report=report, also_dropped=options.also_dropped)
    check_labels(records, cases, show("listing"))
    survey = _Survey(records)
    survey.run(cases, threads=threads, max_pixels=options.max_pixels, progress=show("checking"))
    _check_sizes(survey, options.size, cases)
    if options.duplicates:
        find_duplicates(
            records, survey.pictures(), cases, threads=threads, progress=show("comparing")
        )
    if options.keep_checksums and isinstance(records, IndexedRecords):
        survey.keep_checksums(records)
    return cases


class _Survey:
    """What is kept of every record; arrays [N] in the order of storage."""

    def __init__(self, records: Records) -> None:
        self.records, count = records, len(records)
        self._order = in_storage_order(records)
        self.checksums = np.zeros(count, np.uint32)
        self.sizes = np.zeros(count, np.uint32)  # as_code; 0: not an image
        self.prints = np.zeros((count, 2), np.uint64)
        self.is_picture = np.zeros(count, bool)

    def run(self, cases: Cases, *, threads: int, max_pixels: int, progress: Progress) -> None:
        done, total = 0, len(self.records)
        chunks = chunks_of(total, self._order)
        for numbers, looks in mapped(lambda part: self._look(part, max_pixels), chunks,
                                     threads=threads):  # fmt: skip
            for number, look in zip(numbers.tolist(), looks, strict=True):
                self._add(done, look)
                for kind, detail in look.cases:
                    cases.add_record(kind, number, detail)
                done += 1
            progress(done, total)

    def pictures(self) -> Pictures:
        """Those that can be compared."""
        places = np.flatnonzero(self.is_picture)
        return Pictures(
            self.records.from_storage(places), self.checksums[places], self.prints[places]
        )

    def keep_checksums(self, records: IndexedRecords) -> None:
        """Those that are new, unless the files have changed since the index was made of them."""
        index, known = records.index, records.index.checksums
        if known is not None:
            if known.all():
                return
            self.checksums = np.where(known == 0, self.checksums, known)
        if records.store.fingerprint() == index.notes["fingerprint"]:
            keep_index(index.with_checksums(self.checksums), records.store)

    def _look(self, numbers: Int64Array, max_pixels: int) -> tuple[Int64Array, list[Look]]:
        looks = [look_at(self.records, n, max_pixels=max_pixels) for n in numbers.tolist()]
        return numbers, looks

    def _add(self, place: int, look: Look) -> None:
        self.checksums[place], self.sizes[place] = look.checksum, as_code(look.size)
        if look.prints is not None:
            self.prints[place], self.is_picture[place] = look.prints, True


def _check_sizes(survey: _Survey, wanted: tuple[int, int] | None, cases: Cases) -> None:
    """Images of another size than is wanted, or than most have; where none has most, none."""
    values, counts = np.unique(survey.sizes[survey.sizes > 0], return_counts=True)
    code = as_code(wanted)
    if wanted is None:
        if not len(values) or counts.max() <= _MAJORITY * counts.sum():
            return
        code = int(values[counts.argmax()])
    width, height = from_code(code)
    places = np.flatnonzero((survey.sizes != code) & (survey.sizes > 0))
    numbers = survey.records.from_storage(places)
    for place, number in zip(places.tolist(), numbers.tolist(), strict=True):
        wide, high = from_code(int(survey.sizes[place]))
        cases.add_record("wrong-size", number, f"{wide}x{high}, not {width}x{height}")

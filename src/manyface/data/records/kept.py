"""Keep-lists: a set without some of its records, and the text that names them.

    # manyface keep-list 1: all records stay but these (identity, name, which one, checksum)
    Ann Lee<TAB>0004.jpg<TAB>1<TAB>8f3a1c07
    17<TAB>0000123<TAB>2<TAB>00d1b2c4

Most sets lose a few records in a million, so those that go are written, not those that stay. They
go by identity and name because these survive a conversion, and a number in a file does not: a list
made of train.rec fits the folder or the shards that it is converted to. Records without a name are
called by their number in the store, which `convert` writes as their name. Names are compared as
written, then without suffix and leading zeros; people who are numbers without the zeros, too (that
is how `convert` lets folders keep the order of labels). The third part tells records of one name
apart. TAB, line ends and backslashes in names are written as in Python, a `#` that begins one (else
a comment) as `\\#`. A record that is not found is an error: the list belongs to another set.

The fourth part is the checksum of the record's bytes (the index's, 8 hexadecimal digits; "-" if
they could not be read). Another record would have the same number in a store that has changed, so
records that are called by a number are read and compared. Lists made by hand may end after the
second or the third part.

Memory of the view: 16 bytes per record left out, 8 per person.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from manyface.base.errors import DataError
from manyface.base.files import written
from manyface.data.records.base import (
    Int64Array,
    Records,
    RecordsView,
    labels_of,
    walk_storage,
)
from manyface.data.records.index import checksum_of
from manyface.data.records.indexed import num_numbered
from manyface.data.records.naming import is_image_name
from manyface.data.records.subset import select_records

HEADER = "# manyface keep-list 1: all records stay but these (identity, name, which one, checksum)"
_MAGIC = HEADER.partition(":")[0]
_UNREAD = "-"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "#": "\\#"}
_PLAIN = {escape: sign for sign, escape in _ESCAPES.items()}


class Line(NamedTuple):
    """A record that is left out: its name, which of that name (from 1), and 8 hexadecimal digits,
    or "-" where the checksum of its bytes is not known."""

    name: str
    which: int
    checksum: str


class KeptRecords(RecordsView):
    """`full` without the records `dropped` (int64 [D], ascending, distinct)."""

    def __init__(self, full: Records, *, dropped: Int64Array) -> None:
        starts = full.first_images - np.searchsorted(dropped, full.first_images)
        super().__init__(
            full,
            identity_names=full.identity_names,
            images_per_identity=np.diff(starts).tolist(),
        )
        self._dropped = dropped
        self._thresholds = _thresholds(dropped)

    def from_storage(self, places: Int64Array) -> Int64Array:
        behind = self._thresholds_in_storage.searchsorted(places, side="right")
        records = self._full.from_storage(places + behind)
        return records - self._dropped.searchsorted(records)

    def will_read(self, indices: Int64Array) -> None:
        self._full.will_read(indices + self._thresholds.searchsorted(indices, side="right"))

    @cached_property
    def _thresholds_in_storage(self) -> Int64Array:
        """Of the places of the dropped records in the storage, which is walked for them."""
        found = [np.zeros(0, np.int64)]
        for places, records in walk_storage(self._full):
            found.append(places[np.isin(records, self._dropped)])
        return _thresholds(np.concatenate(found))

    @property
    def index_bytes(self) -> int:
        return self.first_images.nbytes + self._dropped.nbytes + self._thresholds.nbytes

    def _place(self, index: int) -> int:
        return index + int(self._thresholds.searchsorted(index, side="right"))


def _thresholds(dropped: Int64Array) -> Int64Array:
    """Number i of what is left lies behind as many dropped ones as have a threshold <= i."""
    return dropped - np.arange(len(dropped))


def select_kept(records: Records, keep: str | Path) -> Records:
    """`records` without those that the keep-list in the file `keep` names.

    People who lose all their images go too.

    Raises:
        DataError: it is no keep-list, or one of other data, or it leaves nothing.
    """
    keep = Path(keep).expanduser()
    dropped = find_dropped(records, read_keep_list(keep), keep)
    if len(dropped) == len(records):
        raise DataError(f"{keep} leaves none of the {len(records)} records of {records.path}")
    view = KeptRecords(records, dropped=dropped)
    return view if (np.diff(view.first_images) > 0).all() else select_records(view)


def write_keep_list(path: Path, records: Records, dropped: Iterable[int]) -> int:
    """Write the keep-list of `records` without `dropped`; how many it names.

    Raises:
        WriteError: it cannot be written.
    """
    numbers = np.array(sorted(dropped), np.int64)
    people, starts = np.unique(labels_of(records.first_images, numbers), return_index=True)
    with written(path) as file:
        file.write(f"{HEADER}\n".encode())
        for person, part in zip(people.tolist(), np.split(numbers, starts[1:]), strict=False):
            for parts in _dropped_of(records, person, set(part.tolist())):
                line = "\t".join(map(escaped, parts)) + "\n"
                file.write(line.encode("utf-8", "surrogateescape"))
    return len(numbers)


def _dropped_of(records: Records, person: int, dropped: set[int]) -> Iterator[list[str]]:
    """The parts of the lines for the records `dropped` of one person."""
    seen: Counter[str] = Counter()
    first, end = records.first_images[person : person + 2].tolist()
    for record in range(first, end):
        name = records.file_name(record)
        seen[name] += 1
        if record in dropped:
            checksum = _checksum(records, record)
            yield [records.identity_names[person], name, str(seen[name]), checksum]


def _checksum(records: Records, record: int) -> str:
    try:
        return f"{checksum_of(records.read(record)):08x}"
    except OSError:
        return _UNREAD


def read_keep_list(path: Path) -> dict[str, list[Line]]:
    """The records left out, by identity."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    first, *lines = text.split("\n")
    if first.partition(":")[0] != _MAGIC:
        raise DataError(f"{path} is no keep-list: expected {HEADER!r} in its first line")
    wanted: dict[str, list[Line]] = {}
    for number, line in enumerate(lines, start=2):
        if line.strip() and not line.startswith("#"):
            identity, entry = _parsed(line.rstrip("\r"), number, path)
            wanted.setdefault(identity, []).append(entry)
    return wanted


def find_dropped(records: Records, wanted: dict[str, list[Line]], keep: Path) -> Int64Array:
    """Records by what `read_keep_list` gave, int64 [D], ascending.

    Raises:
        DataError: one is absent, or one that is called by its number is another one.
    """
    found: set[int] = set()
    compare = num_numbered(records) > 0
    for identity, person in _people(records, wanted, keep).items():
        first, end = records.first_images[person : person + 2].tolist()
        places = _Places([records.file_name(i) for i in range(first, end)])
        for line in wanted[identity]:
            place = places.find(line.name, line.which)
            if place is None:
                raise DataError(
                    f"{keep}: {identity!r} has no record {line.name!r} in {records.path}; "
                    "the list belongs to other data"
                )
            if compare:
                _check_same(records, first + place, line, keep)
            found.add(first + place)
    return np.array(sorted(found), np.int64)


def _people(records: Records, wanted: Iterable[str], keep: Path) -> dict[str, int]:
    """Which person each of the identities `wanted` is."""
    found: dict[str, int] = {}
    for same in (str, _without_zeros):
        missing = {same(identity): identity for identity in wanted if identity not in found}
        for person, name in enumerate(records.identity_names if missing else []):
            if (identity := missing.pop(same(name), None)) is not None:
                found[identity] = person
    if missing:
        raise DataError(
            f"{keep}: there is nobody called {next(iter(missing.values()))!r} in {records.path} "
            f"({len(missing)} such names); the list belongs to other data"
        )
    return found


def _check_same(records: Records, record: int, line: Line, keep: Path) -> None:
    """The record is the one that the list was made for, as far as either can be read."""
    now = _checksum(records, record)
    if _UNREAD not in (now, line.checksum) and now != line.checksum:
        raise DataError(
            f"{keep}: record {line.name!r} of {records.path} has the checksum {now} and not "
            f"{line.checksum}; the list belongs to other data, make it again"
        )


class _Places:
    """Where names are among those of one person: as written, else without suffix and zeros."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact: defaultdict[str, list[int]] = defaultdict(list)
        self._bare: defaultdict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            self._exact[name].append(place)
            self._bare[_bare(name)].append(place)

    def find(self, name: str, which: int) -> int | None:
        """The `which`-th of that name; None if there is none."""
        for places in (self._exact.get(name, []), self._bare.get(_bare(name), [])):
            if len(places) >= which:
                return places[which - 1]
        return None


def escaped(text: str) -> str:
    """On one line, without TAB, not begun by the sign of a comment."""
    return re.sub(r"^#|[\\\t\n\r]", lambda sign: _ESCAPES[sign[0]], text)


def unescaped(text: str) -> str:
    """What was `escaped`."""
    return re.sub(r"\\[\\tnr#]", lambda escape: _PLAIN[escape[0]], text)


def _parsed(text: str, number: int, path: Path) -> tuple[str, Line]:
    """Identity and the rest of one line."""
    parts = [unescaped(part) for part in text.split("\t")]
    identity, name, which, checksum, *more = [*parts, *["", "1", _UNREAD][len(parts) - 1 :]]
    if (
        len(parts) < 2
        or more
        or not (which.isdecimal() and int(which))
        or not re.fullmatch(r"[0-9a-f]{8}|-", checksum)
    ):
        raise DataError(
            f"{path}, line {number}: expected identity, TAB, name (TAB, number from 1, TAB, "
            f"checksum of 8 hexadecimal digits), got {text[:80]!r}"
        )
    return identity, Line(name, int(which), checksum)


def _bare(name: str) -> str:
    """Without the suffix of an image, numbers without leading zeros."""
    return _without_zeros(name.rpartition(".")[0] if is_image_name(name) else name)


def _without_zeros(name: str) -> str:
    return name.lstrip("0") or "0" if name.isdecimal() else name

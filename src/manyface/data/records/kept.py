"""Keep-lists: a set without some of its records, and the text that names them.

    # manyface keep-list 1: all records stay but these (identity, name, which of that name)
    Ann Lee<TAB>0004.jpg
    17<TAB>0000123<TAB>2

Most sets lose a few records in a million, so those that go are written, not those that stay. They
go by identity and name because these survive a conversion, and a number in a file does not: a list
made of train.rec fits the folder or the shards that it is converted to. Records without a name are
called by their number in the store, which `convert` writes as their name. Names are compared as
written, then without suffix and leading zeros. A third part, from 2 on, tells records of one name
apart. TAB, line ends and backslashes in names are written as in Python. A record that is not found
is an error: the list belongs to another set.

Memory of the view: 16 bytes per record left out, 8 per person.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records.base import (
    Int64Array,
    Records,
    RecordsView,
    labels_of,
    walk_storage,
)
from manyface.data.records.files import new_file
from manyface.data.records.naming import is_image_name
from manyface.data.records.subset import select_records

HEADER = "# manyface keep-list 1: all records stay but these (identity, name, which of that name)"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_PLAIN = {escape: sign for sign, escape in _ESCAPES.items()}


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
    view = KeptRecords(records, dropped=dropped)
    return view if (np.diff(view.first_images) > 0).all() else select_records(view)


def write_keep_list(path: Path, records: Records, dropped: Iterable[int]) -> int:
    """Write the keep-list of `records` without `dropped`; how many it names. OSError as of open."""
    numbers = np.array(sorted(dropped), np.int64)
    people = labels_of(records.first_images, numbers)
    with new_file(path) as file:
        file.write(f"{HEADER}\n".encode())
        for person in np.unique(people).tolist():
            for parts in _dropped_of(records, person, set(numbers[people == person].tolist())):
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
            which = [str(seen[name])] if seen[name] > 1 else []
            yield [records.identity_names[person], name, *which]


def read_keep_list(path: Path) -> dict[str, list[tuple[str, int]]]:
    """(name, which of that name, from 1) of every record left out, by identity."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    first, *lines = text.split("\n")
    if first.rstrip("\r") != HEADER:
        raise DataError(f"{path} is no keep-list: expected {HEADER!r} in its first line")
    wanted: dict[str, list[tuple[str, int]]] = {}
    for number, line in enumerate(lines, start=2):
        if line.strip() and not line.startswith("#"):
            identity, name, which = _parts(line.rstrip("\r"), number, path)
            wanted.setdefault(identity, []).append((name, which))
    return wanted


def find_dropped(
    records: Records, wanted: dict[str, list[tuple[str, int]]], keep: Path
) -> Int64Array:
    """Records by what `read_keep_list` gave, int64 [D], ascending; DataError if one is absent."""
    found: set[int] = set()
    missing = dict(wanted)
    for person, identity in enumerate(records.identity_names):
        if missing.pop(identity, None) is not None:
            first, end = records.first_images[person : person + 2].tolist()
            names = [records.file_name(i) for i in range(first, end)]
            for name, which in wanted[identity]:
                place = _place_of(name, which, names)
                if place is None:
                    raise DataError(
                        f"{keep}: {identity!r} has no record {name!r} in {records.path}; "
                        "the list belongs to other data"
                    )
                found.add(first + place)
    if missing:
        raise DataError(
            f"{keep}: there is nobody called {next(iter(missing))!r} in {records.path} "
            f"({len(missing)} such names); the list belongs to other data"
        )
    return np.array(sorted(found), np.int64)


def escaped(text: str) -> str:
    """On one line, without TAB."""
    return re.sub(r"[\\\t\n\r]", lambda sign: _ESCAPES[sign[0]], text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\[\\tnr]", lambda escape: _PLAIN[escape[0]], text)


def _parts(line: str, number: int, path: Path) -> tuple[str, str, int]:
    parts = [_unescaped(part) for part in line.split("\t")]
    which = parts[2] if len(parts) == 3 else "1"
    if len(parts) not in (2, 3) or not which.isdecimal() or int(which) < 1:
        raise DataError(
            f"{path}, line {number}: expected identity, TAB, name (TAB, number from 2), got "
            f"{line[:80]!r}"
        )
    return parts[0], parts[1], int(which)


def _place_of(name: str, which: int, names: Sequence[str]) -> int | None:
    """Where the `which`-th `name` is among `names`; None if nowhere."""
    for same in (str, _bare):
        places = [i for i, other in enumerate(names) if same(other) == same(name)]
        if len(places) >= which:
            return places[which - 1]
    return None


def _bare(name: str) -> str:
    """Without the suffix of an image, numbers without leading zeros."""
    stem = name.rpartition(".")[0] if is_image_name(name) else name
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem

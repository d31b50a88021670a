"""The `.lst` that a `.rec` was packed from: what labels and keys were called before.

Lines between tabs: key, label, path as im2rec writes them, or key, path, label as insightface does.
It is no part of the format and may belong to other data, so it is taken only where all of it fits:
every line can be read, every label has one folder, every folder one label, every key its line,
and that line the label of the record. Else nobody gets a name from it.
"""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from manyface.data.records.naming import person_name
from manyface.data.records.store import Found, Int64Array
from manyface.data.records.table import StringTable

CONTRADICTS = "does not name every record with the label it has, and was not used"


class PackingList:
    """Attributes:
    keys: int64 [n], ascending.
    """

    def __init__(
        self, keys: Int64Array, labels: Int64Array, names: StringTable, folders: dict[int, str]
    ) -> None:
        self._order = np.argsort(keys, kind="stable")
        self.keys, self._labels = keys[self._order], labels[self._order]
        self._names, self._folders = names, folders

    @classmethod
    def read(cls, path: Path) -> "PackingList | None":
        """The list in the file `path`; None if there is none, or it contradicts itself."""
        keys, labels, ends, names = array("q"), array("q"), array("q", [0]), bytearray()
        folders: dict[int, str] = {}
        try:
            with path.open(encoding="utf-8", errors="surrogateescape") as lines:
                for line in lines:
                    key, label, folder, name = _parse(line)
                    if folders.setdefault(label, folder) != folder:
                        return None
                    keys.append(key)
                    labels.append(label)
                    names += os.fsencode(name)
                    ends.append(len(names))
        except (OSError, ValueError, IndexError, OverflowError):
            return None
        if not keys or len(set(folders.values())) < len(folders):
            return None
        text = np.frombuffer(names, np.uint8)
        table = StringTable.from_parts(text, np.frombuffer(ends, np.int64))
        return cls(np.frombuffer(keys, np.int64), np.frombuffer(labels, np.int64), table, folders)

    def person_names(self, numbers: Int64Array) -> list[str] | None:
        """Folders of labels: int64 [P]; None if one has none."""
        names = [self._folders.get(number, "") for number in numbers.tolist()]
        return names if all(names) else None

    def fits(self, found: Found, keys: Int64Array) -> bool:
        """Whether each of the records `found`, of `keys` [n], has a line with its own label."""
        places = self._places(keys)
        return (
            isinstance(found.people, np.ndarray)
            and bool((self.keys[places] == keys).all())
            and bool((self._labels[places] == found.people).all())
        )

    def file_names(self, keys: Int64Array) -> Sequence[str]:
        """Last parts of the paths of `keys`, int64 [n], all of which have a line."""
        return [self._names[place] for place in self._order[self._places(keys)].tolist()]

    def _places(self, keys: Int64Array) -> Int64Array:
        return np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)


def list_line(key: int, label: int, identity: str, name: str) -> bytes:
    """A line of such a list, in im2rec's order."""
    return b"%d\t%d\t%s\n" % (key, label, os.fsencode(f"{identity}/{name}"))


def named_by(
    listed: PackingList, parts: Iterable[tuple[Found, Int64Array | None]]
) -> tuple[bool, Iterator[Found]]:
    """Whether `listed` fits all records, and these: with the names of their files if it does.

    Args:
        parts: some records with their keys, int64 [n]; None where they have none. All are held,
            about 30 bytes a record and their names, since the last of them decides about the first.
    """
    held = list(parts)
    if not all(keys is not None and listed.fits(found, keys) for found, keys in held):
        return False, (found for found, _ in held)
    return True, (
        replace(found, names=listed.file_names(keys)) for found, keys in held if keys is not None
    )


def _parse(line: str) -> tuple[int, int, str, str]:
    """Key, label, folder and file name; ValueError or IndexError if it is no such line."""
    parts = line.rstrip("\r\n").split("\t")
    label, path = (parts[1], parts[-1]) if _is_number(parts[1]) else (parts[-1], parts[1])
    folder, _, name = path.rpartition("/")
    if not folder or float(label) != int(float(label)):
        raise ValueError(line)
    return int(parts[0]), int(float(label)), person_name(folder), name


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()

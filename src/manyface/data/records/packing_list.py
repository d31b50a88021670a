"""The `.lst` that a `.rec` was packed from: what labels and keys were called before.

Lines between tabs: key, label, path as im2rec writes them, or key, path, label as insightface does.
It is no part of the format and may belong to other data, so it is taken only where all of it fits:
every line can be read, every label has one folder, every folder one label, every key its line.
"""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from manyface.data.records.naming import person_name
from manyface.data.records.store import Int64Array
from manyface.data.records.table import StringTable


class PackingList:
    """Attributes:
    keys: int64 [n], ascending.
    """

    def __init__(self, keys: Int64Array, names: StringTable, folders: dict[int, str]) -> None:
        self._order = np.argsort(keys, kind="stable")
        self.keys = keys[self._order]
        self._names, self._folders = names, folders

    @classmethod
    def read(cls, path: Path) -> "PackingList | None":
        """The list in the file `path`; None if there is none, or it contradicts itself."""
        keys, ends, names = array("q"), array("q", [0]), bytearray()
        folders: dict[int, str] = {}
        try:
            with path.open(encoding="utf-8", errors="surrogateescape") as lines:
                for line in lines:
                    key, label, folder, name = _parse(line)
                    if folders.setdefault(label, folder) != folder:
                        return None
                    keys.append(key)
                    names += os.fsencode(name)
                    ends.append(len(names))
        except (OSError, ValueError, IndexError, OverflowError):
            return None
        if not keys or len(set(folders.values())) < len(folders):
            return None
        text = np.frombuffer(names, np.uint8)
        table = StringTable.from_parts(text, np.frombuffer(ends, np.int64))
        return cls(np.frombuffer(keys, np.int64), table, folders)

    def person_names(self, numbers: Int64Array) -> list[str] | None:
        """Folders of labels: int64 [P]; None if one has none."""
        names = [self._folders.get(number, "") for number in numbers.tolist()]
        return names if all(names) else None

    def file_names(self, keys: Int64Array) -> Sequence[str]:
        """Last parts of the paths of `keys`, int64 [n]; "" where it has none."""
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[places] == keys
        found = zip(self._order[places].tolist(), known.tolist(), strict=True)
        return [self._names[place] if there else "" for place, there in found]


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

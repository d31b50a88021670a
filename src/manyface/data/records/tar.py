"""The same folder of persons inside an uncompressed tar file, read in place.

One pass over the headers gives the place of every image; after that an image is one `pread`, which
needs no lock, so any number of threads read at once. Nothing is extracted: links, absolute paths
and ".." can do no harm: a hard link stands for the file before it that it shares (which takes a
second pass), other links are left out with a warning, the rest is ignored or taken as relative. A
path that is stored twice counts once, the later one, as tar itself does. Text files can be read
(`read_text`), so that lists may travel with the images. Memory of the index: 24 bytes and the file
name per image, a few hundred bytes per person, and 8 bytes per image more once the order in the
archive is asked for.
"""

import logging
import os
from array import array
from collections import Counter
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.data.records.base import GroupedRecords, Warn, decode_text, person_of
from manyface.data.records.files import PlainFile
from manyface.data.records.headers import Member, iterate_members
from manyface.data.records.naming import (
    check_distinct,
    is_hidden,
    is_image_name,
    is_left_out,
    left_out_warning,
    people_of_folders,
    suffix_of,
)
from manyface.data.records.readahead import will_need
from manyface.data.records.store import LARGEST_IMAGE
from manyface.data.records.table import StringTable

log = logging.getLogger(__name__)

Int64Array = npt.NDArray[np.int64]
_MAX_TEXT_BYTES = 64 << 20


class TarRecords(GroupedRecords):
    """Images of the tar file `path`, one folder per person."""

    def __init__(self, path: Path, *, warn: Warn = log.warning) -> None:
        self._file = PlainFile(path)
        self.close = self._file.close
        draft = _Draft.of(self._file)
        if draft.shared:
            draft = _Draft.of(self._file, shared=draft.shared)
        if not draft.folders:
            raise DataError(f"no images in {path}: expected folders of persons inside the archive")
        if draft.loose:
            warn(f"{draft.loose} images at the top of {path} belong to no person and are left out")
        if draft.unfollowed:
            warn(
                f"{draft.unfollowed} linked images in {path} are left out: only hard links to "
                "files before them in it are followed; pack it with tar --dereference"
            )
        if text := left_out_warning(draft.others(), str(path)):
            warn(text)
        self._texts = draft.texts
        folders, counts = self._arrange(draft)
        names = people_of_folders(folders)
        check_distinct(names, str(path))
        self._folders = folders
        super().__init__(path, identity_names=names, images_per_identity=counts)

    def _arrange(self, draft: "_Draft") -> tuple[list[str], list[int]]:
        """Sort people by folder and images by file name; keep the last of equal paths."""
        found_names = draft.file_names()
        owner = np.frombuffer(draft.owners, dtype=np.int64)
        by_folder = sorted(draft.folders)
        rank = np.empty(len(by_folder), np.int64)
        rank[[draft.folders[folder] for folder in by_folder]] = np.arange(len(by_folder))
        grouped = np.argsort(rank[owner], kind="stable")
        sizes = np.bincount(rank[owner], minlength=len(by_folder))
        order: array[int] = array("q")
        counts: list[int] = []
        for members in np.split(grouped, np.cumsum(sizes)[:-1]):
            last = {found_names[i]: i for i in members.tolist()}  # equal paths: the later one
            order.extend(last[name] for name in sorted(last))
            counts.append(len(last))
        kept = np.frombuffer(order, dtype=np.int64)
        self._offsets = np.frombuffer(draft.offsets, dtype=np.int64)[kept]
        self._sizes = np.frombuffer(draft.sizes, dtype=np.int64)[kept]
        self._file_names = StringTable(found_names[i] for i in order)
        return by_folder, counts

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        if size > LARGEST_IMAGE:
            raise OSError(f"it has {size} bytes, more than any image ({LARGEST_IMAGE})")
        return self._file.read(int(self._offsets[index]), size)

    def file_name(self, index: int) -> str:
        return self._file_names[index]

    def describe(self, index: int) -> str:
        person = person_of(self.first_images, index)
        return f"{self.path}:{self._folders[person]}/{self._file_names[index]}"

    def read_text(self, name: str) -> str:
        member = self._texts.get(name.removeprefix("./"))
        if member is None:
            known = ", ".join(sorted(self._texts)[:5]) or "none"
            raise DataError(f"no file {name!r} in {self.path}; other files in it: {known}")
        if member.size > _MAX_TEXT_BYTES:
            raise DataError(f"{self.path}:{name} has {member.size} bytes: not a list")
        raw = self._file.read(member.offset, member.size)
        return decode_text(raw, f"{self.path}:{name}")

    def from_storage(self, places: Int64Array) -> Int64Array:
        return self._by_offset[places]

    def will_read(self, indices: Int64Array) -> None:
        will_need(self._file.descriptor, self._offsets[indices], self._sizes[indices])

    @cached_property
    def _by_offset(self) -> Int64Array:
        return np.argsort(self._offsets, kind="stable")

    def text_names(self) -> list[str]:
        return list(self._texts)

    @property
    def index_bytes(self) -> int:
        arrays = self._offsets.nbytes + self._sizes.nbytes + self.first_images.nbytes
        return arrays + self._file_names.num_bytes


class _Draft:
    """What one pass over the headers collects, in archive order.

    `shared` has the paths that hard links share. A pass that is given those of an earlier one
    follows the links.
    """

    def __init__(self, shared: Collection[str]) -> None:
        self.shared: set[str] = set()
        self.unfollowed = 0
        self._contents: dict[str, Member | None] = dict.fromkeys(shared)
        self.folders: dict[str, int] = {}
        self.owners, self.offsets, self.sizes = array("q"), array("q"), array("q")
        self.texts: dict[str, Member] = {}
        self.loose = 0
        self._names = bytearray()
        self._ends = array("q", [0])

    @classmethod
    def of(cls, file: PlainFile, *, shared: Collection[str] = ()) -> "_Draft":
        """The draft of a whole archive."""
        draft = cls(shared)
        for member in iterate_members(file):
            draft.add(member)
        return draft

    def add(self, member: Member) -> None:
        parts = _parts(member.name)
        if member.shares is not None:
            content = self._follow(member.shares)
            if content is None:
                self.unfollowed += bool(parts) and is_image_name(parts[-1])
                return
            member = content
        if "/".join(parts) in self._contents:
            self._contents["/".join(parts)] = member
        if not parts or ".." in parts or any(is_hidden(part) for part in parts):
            return
        if not is_image_name(parts[-1]):
            self.texts["/".join(parts)] = member
        elif len(parts) == 1:
            self.loose += 1
        else:
            self._add_image("/".join(parts[:-1]), parts[-1], member)

    def others(self) -> Counter[str]:
        """By suffix: other files that lie among images, and photos of kinds that are not read."""
        places = (name.rpartition("/") for name in self.texts)
        found = ((folder in self.folders, suffix_of(name)) for folder, _, name in places)
        return Counter(suffix for among, suffix in found if is_left_out(suffix, among_images=among))

    def _follow(self, shares: str) -> Member | None:
        target = "/".join(_parts(shares))
        if target:
            self.shared.add(target)
        return self._contents.get(target)

    def _add_image(self, folder: str, file_name: str, member: Member) -> None:
        self.owners.append(self.folders.setdefault(folder, len(self.folders)))
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self._names += os.fsencode(file_name)
        self._ends.append(len(self._names))

    def file_names(self) -> StringTable:
        return StringTable.from_parts(
            np.frombuffer(self._names, np.uint8), np.array(self._ends, dtype=np.int64)
        )


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]

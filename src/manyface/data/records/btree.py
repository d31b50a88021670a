"""Walking the records of an LMDB file: keys, places and sizes, nothing mapped and nothing trusted.

Written here because the library maps the file: one that is cut off kills the process (SIGBUS, 20 of
20 tried), an environment can be opened once in a process and not be used after a fork, and it tells
no places, so that each read would search the tree again. Here a value is a stretch of the file. The
library remains the oracle in the tests, and the writer (lmdb.py).

The layout of LMDB 0.9 (data version 1) on 64-bit little-endian machines, a B+ tree of pages:

    page    U64 number, U16, U16 flags (1 branch, 2 leaf, 8 meta), U16 lower, U16 upper; then U16
            offsets of nodes in the page, as many as lie before `lower`
    node    U16 low, U16 high, U16 flags, U16 length of the key; the key
            branch: number of the page below = low + high << 16 + flags << 32
            leaf: size of the value = low + high << 16; then the value, or, flag 1, the number of
            the first of the pages in a row that hold it, behind one header
    pages 0 and 1 say where the root is; the one with the later transaction counts
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from manyface.base.errors import DataError
from manyface.data.records.files import PlainFile
from manyface.data.records.store import Faults

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_MAGIC_AT = 16  # in the file; 24 with LMDB 1.0
_HEADER = struct.Struct("<QHHHH")
_NODE = struct.Struct("<HHHH")
_META = struct.Struct("<II16xI44x4xHHQQQQQQQ")  # to the transaction's number
_BRANCH, _LEAF, _IS_META = 1, 2, 8
_BIG, _SUB, _DUPLICATES = 1, 2, 4
_EMPTY = (1 << 64) - 1
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with the place of its value in the file, bytes."""

    key: bytes
    offset: int
    size: int


def is_lmdb(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an LMDB file, of any version."""
    places = (_MAGIC_AT, _MAGIC_AT + 8)
    return any(head[at : at + 4] == _MAGIC.to_bytes(4, "little") for at in places)


class Tree:
    """The main database of `file`.

    Raises:
        DataError: it is none, or of another version.
    """

    def __init__(self, file: PlainFile) -> None:
        self._file = file
        self._end = file.size
        self._page_size, self._num_pages, self._root, self.num_entries = _read_meta(file)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        entry = next(self.walk(Faults(), start=key), None)
        if entry is None or entry.key != key:
            return None
        return self._file.read(entry.offset, entry.size)

    def walk(self, faults: Faults, *, start: bytes = b"") -> Iterator[Entry]:
        """Entries with keys from `start` on, ascending; `faults` gets what cannot be read."""
        if self._root == _EMPTY:
            return
        pending = [(self._root, 0)]
        budget, last = self._num_pages, None
        while pending and budget:
            number, depth = pending.pop()
            budget -= 1
            try:
                flags, page = self._page(number)
                if flags & _BRANCH and depth < _DEEPEST:
                    below = _children(page, start)
                    pending += [(child, depth + 1) for child in reversed(below)]
                    continue
                for entry in self._leaf(page, flags, number, faults):
                    if last is not None and entry.key <= last:
                        raise ValueError("keys that do not ascend")
                    last = entry.key
                    if entry.key >= start:
                        yield entry
            except (ValueError, struct.error, OSError) as error:
                faults.add(f"page {number} is damaged ({error}): what it holds is left out")

    def _page(self, number: int) -> tuple[int, bytes]:
        page = self._file.read(number * self._page_size, self._page_size)
        own_number, _, flags, _, _ = _HEADER.unpack_from(page)
        if own_number != number:
            raise ValueError(f"it calls itself {own_number}")
        if flags not in (_BRANCH, _LEAF):
            raise ValueError(f"of kind {flags}")
        return flags, page

    def _leaf(self, page: bytes, flags: int, number: int, faults: Faults) -> Iterator[Entry]:
        if flags != _LEAF:
            raise ValueError("deeper than any tree")
        for at in _node_offsets(page):
            low, high, kind, key_size = _NODE.unpack_from(page, at)
            key = page[at + _NODE.size : at + _NODE.size + key_size]
            place, size = at + _NODE.size + key_size, low | high << 16
            if kind & (_SUB | _DUPLICATES):
                faults.add(f"{key[:60]!r} is a database within, or has several values")
                continue
            if kind & _BIG:
                (first,) = struct.unpack_from("<Q", page, place)
                offset, end = first * self._page_size + _HEADER.size, self._end
            else:
                base = number * self._page_size
                offset, end = base + place, base + self._page_size
            if offset + size > end:
                faults.add(f"the value of {key[:60]!r} ends past the end of the file")
                continue
            yield Entry(key, offset, size)


def _children(page: bytes, start: bytes) -> list[int]:
    """The pages below a branch that may hold keys from `start` on."""
    children: list[int] = []
    for at in _node_offsets(page):
        low, high, upper, key_size = _NODE.unpack_from(page, at)
        if page[at + _NODE.size : at + _NODE.size + key_size] <= start:
            children.clear()  # all keys before this one are smaller
        children.append(low | high << 16 | upper << 32)
    return children


def _node_offsets(page: bytes) -> tuple[int, ...]:
    lower = _HEADER.unpack_from(page)[3]
    if not _HEADER.size <= lower <= len(page):
        raise ValueError("more nodes than fit")
    return struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", page, _HEADER.size)


def _read_meta(file: PlainFile) -> tuple[int, int, int, int]:
    """Page size, number of pages, root and number of entries, of the later of both meta pages."""
    metas = []
    try:
        first = _parse_meta(file, 0)
        metas.append(first)
        metas.append(_parse_meta(file, first[1]))
    except (ValueError, OSError) as error:
        if not metas:
            raise DataError(
                f"{file.path} is no LMDB file that can be read ({error}); expected one of LMDB 0.9 "
                "on a 64-bit little-endian machine: write it anew with that"
            ) from None
    _, page_size, num_pages, root, num_entries = max(metas)
    return page_size, num_pages, root, num_entries


def _parse_meta(file: PlainFile, offset: int) -> tuple[int, int, int, int, int]:
    """Transaction, then what `_read_meta` gives."""
    data = file.read(offset, _HEADER.size + _META.size)
    flags = _HEADER.unpack_from(data)[2]
    fields = _META.unpack_from(data, _HEADER.size)
    magic, version, page_size, _, _, _, _, _, entries, root, last_page, transaction = fields
    if magic != _MAGIC or version != _VERSION or not flags & _IS_META:
        raise ValueError(f"data version {version}" if magic == _MAGIC else "its first page is none")
    if page_size & page_size - 1 or not 256 <= page_size <= 1 << 16:
        raise ValueError(f"pages of {page_size} bytes")
    return transaction, page_size, min(last_page + 1, file.size // page_size + 1), root, entries

"""A long list of strings in two arrays: the text back to back, and where each one ends.

A Python list of 17 million short strings takes 1.2 GB; this takes the bytes of the text plus 8 per
string, and makes a string only when it is asked for.
"""

import os
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt


class StringTable(Sequence[str]):
    """An immutable sequence of strings; file names that are no valid UTF-8 survive unchanged."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        text = bytearray()
        ends = [0]
        for string in strings:
            text += os.fsencode(string)
            ends.append(len(text))
        self._text = bytes(text)
        self._ends = np.asarray(ends, dtype=np.int64)  # [N + 1]

    @classmethod
    def from_parts(cls, text: bytes, ends: npt.NDArray[np.int64]) -> "StringTable":
        """From encoded `text` and `ends` [N + 1], beginning with 0."""
        table = cls()
        table._text, table._ends = text, ends
        return table

    @property
    def num_bytes(self) -> int:
        """Memory held, in bytes."""
        return len(self._text) + self._ends.nbytes

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a table of {len(self)} strings")
        index %= len(self)
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]])

"""Long lists of strings that cost little: a text with the ends of its parts, and plain numbers.

A Python list of 17 million short strings takes 1.2 GB; a text takes its bytes plus 8 per string,
and makes a string only when it is asked for.
"""

import os
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt


class LazyStrings(Sequence[str]):
    """An immutable sequence of strings that are made when asked for."""

    def _string(self, index: int) -> str:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self._string(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a table of {len(self)} strings")
        return self._string(index % len(self))


class StringTable(LazyStrings):
    """Any strings; file names that are no valid UTF-8 survive unchanged."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        text = bytearray()
        ends = [0]
        for string in strings:
            text += os.fsencode(string)
            ends.append(len(text))
        self._text: npt.NDArray[np.uint8] = np.frombuffer(text, np.uint8)
        self._ends = np.asarray(ends, dtype=np.int64)  # [N + 1]

    @classmethod
    def from_parts(cls, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> "StringTable":
        """From encoded `text` (uint8) and `ends` [N + 1], beginning with 0."""
        table = cls()
        table._text, table._ends = text, ends
        return table

    def parts(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """What `from_parts` takes, as "name.text" and "name.ends"."""
        return {f"{name}.text": self._text, f"{name}.ends": self._ends}

    @property
    def num_bytes(self) -> int:
        """Memory held, in bytes."""
        return self._text.nbytes + self._ends.nbytes

    def __len__(self) -> int:
        return len(self._ends) - 1

    def _string(self, index: int) -> str:
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]].tobytes())


class NumberNames(LazyStrings):
    """People who are known by numbers: int64 [P]."""

    def __init__(self, numbers: npt.NDArray[np.int64]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _string(self, index: int) -> str:
        return str(self._numbers[index])


class ChosenStrings(LazyStrings):
    """Some of `strings`: those at `places`, int64 [K]."""

    def __init__(self, strings: Sequence[str], places: npt.NDArray[np.int64]) -> None:
        self._strings, self._places = strings, places

    def __len__(self) -> int:
        return len(self._places)

    def _string(self, index: int) -> str:
        return self._strings[int(self._places[index])]

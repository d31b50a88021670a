"""The active rows of a softmax, read a chunk at a time."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Rows(Protocol):
    """Active rows that can be read a chunk at a time."""

    @property
    def dtype(self) -> torch.dtype:
        """In which they are stored."""

    def __len__(self) -> int:
        """Number of active rows K."""

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as [stop - start, D]: a view or a copy, not to be written."""

    def take(self, places: Tensor) -> Tensor:
        """Copies [N, D] of the rows at `places`, int64 [N]."""


class TensorRows:
    """Rows that lie in one tensor [K, D]."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def dtype(self) -> torch.dtype:
        """That of the tensor."""
        return self.tensor.dtype

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def read(self, start: int, stop: int) -> Tensor:
        """A view."""
        return self.tensor[start:stop]

    def take(self, places: Tensor) -> Tensor:
        """A copy."""
        return self.tensor[places]


def chunk_borders(num_rows: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each chunk."""
    for start in range(0, num_rows, chunk_size):
        yield start, min(start + chunk_size, num_rows)

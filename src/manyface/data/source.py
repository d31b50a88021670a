"""The one protocol by which images reach the loader and the evaluators."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

Int64Array = npt.NDArray[np.int64]


def check_records(indices: Int64Array, count: int) -> None:
    """IndexError if one of `indices` is none of the records 0 to count - 1."""
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise IndexError(f"records are 0 to {count - 1}, got {indices.min()} to {indices.max()}")


class ImageSource(Protocol):
    """Labelled square images that can be asked for in any order, from any thread.

    Attributes:
        name: for messages and reports.
        image_size: side S of every image, pixels.
        num_identities: labels are in [0, num_identities).
        identity_names: name of each label; may be computed when asked.
    """

    # Properties, so that a plain attribute and a computed value both satisfy the protocol.
    @property
    def name(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def num_identities(self) -> int: ...
    @property
    def identity_names(self) -> Sequence[str]: ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def labels(self, indices: Int64Array) -> Int64Array:
        """Identity of each record: int64 [B] -> int64 [B], in [0, num_identities)."""
        ...

    def load(self, indices: Int64Array, out: torch.Tensor | None = None) -> torch.Tensor:
        """Pixels of each record: int64 [B] -> uint8 [B, S, S, 3], RGB; in `out` if it is given."""
        ...

    def from_storage(self, places: Int64Array) -> Int64Array:
        """Records that lie at `places` of the storage, in its own order: int64 [B] -> int64 [B]."""
        ...

    def will_read(self, indices: Int64Array) -> None:
        """Hint: these records, int64 [B], will be asked for soon."""
        ...


class GroupedSource(ImageSource, Protocol):
    """An ImageSource whose images of one identity are neighbours."""

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """First record and number of images of each identity: int64 [B] -> int64 [B] twice."""
        ...

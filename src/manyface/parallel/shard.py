"""Which rows of a table a rank holds: neighbouring ones, the first ranks one more each.

As insightface shards: of N rows over W ranks, rank r has N // W, and one more if r < N % W. A rank
may have none. Rows are plain local tensors; checkpoints say where they begin.
"""

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of `total`.

    Attributes:
        start: first row.
        stop: one past the last.
        total: rows of all ranks.
    """

    start: int
    stop: int
    total: int

    @classmethod
    def of(cls, total: int, *, rank: int = 0, size: int = 1) -> Self:
        """What `rank` of `size` holds of `total` rows."""
        each, more = divmod(total, size)
        start = rank * each + min(rank, more)
        return cls(start, start + each + (rank < more), total)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Whether there are no other rows."""
        return len(self) == self.total

    def times(self, count: int) -> "Shard":
        """The same with `count` rows for each."""
        return Shard(self.start * count, self.stop * count, self.total * count)

    def holds(self, rows: Tensor) -> Tensor:
        """Which of `rows`, int64 [n], are here: bool [n]."""
        return (rows >= self.start) & (rows < self.stop)

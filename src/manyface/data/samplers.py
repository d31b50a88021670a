"""Which record stands at which position of training, without storing an order.

Training sees an endless row of positions 0, 1, 2, ... Position p lies in epoch p // length and each
epoch is an order of its own, computed from keyed permutations (base/permutation.py). The answer
depends on (seed, p) only: no state to save, O(1) memory for any number of records, and any worker
or rank may ask for any slice. Global batch b of size G is positions [b G, (b + 1) G); it may
straddle two epochs, so no image is dropped at the end of an epoch and no batch is short.

`EpochSampler` permutes the records of an epoch: any record may come next, which suits memory and
fast disks. `BlockSampler` reads what lies together soon after each other, for slow disks and
shards; docs/data.md has what that costs in randomness and gains in speed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from manyface.base.permutation import Permutation
from manyface.base.random import stream_seed

Int64Array = npt.NDArray[np.int64]
Order = Callable[[Int64Array], Int64Array]  # offsets in an epoch, [B] -> records [B]
_NONE = np.empty(0, np.int64)


class Sampler(Protocol):
    """Which record stands at which position."""

    def indices(self, positions: Int64Array) -> Int64Array:
        """Records at `positions`: int64 [B], each >= 0 -> int64 [B]."""
        ...

    def ahead(self, first: int, count: int, *, begins: bool = False) -> Int64Array:
        """Records worth asking the disk for when positions [first, first + count) are read;
        `begins`: and nothing was read before."""
        ...


class MakeSampler(Protocol):
    """How a loader makes the sampler of a source with `length` records."""

    def __call__(self, length: int, *, seed: int) -> Sampler: ...


class EpochSampler:
    """Every record exactly once per epoch, in an order that is computed from (seed, epoch).

    Args:
        length: number of records, >= 1.
        seed: of this stream; another seed gives unrelated orders.
    """

    def __init__(self, length: int, *, seed: int) -> None:
        if length < 1:
            raise ValueError(f"a sampler needs at least one record, got {length}")
        self.length = length
        self.seed = seed

    def indices(self, positions: npt.NDArray[np.integer]) -> Int64Array:
        """Records at `positions`: int [B], each >= 0 -> int64 [B], each in [0, length)."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"positions must be >= 0, got {positions.min()}")
        epochs, offsets = np.divmod(positions, self.length)
        records = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            records[here] = self.order(int(epoch))(offsets[here])
        return records

    def ahead(self, first: int, count: int, *, begins: bool = False) -> Int64Array:
        """None: nothing tells the next records from others before their turn."""
        return _NONE

    def order(self, epoch: int) -> Order:
        """Offset in the epoch -> record."""
        return Permutation(self.length, seed=stream_seed(self.seed, "epoch", epoch))


class BlockSampler(EpochSampler):
    """Every record exactly once per epoch, blocks of neighbours in storage soon after each other.

    Records in the order of storage are cut into blocks of `block_size`, of which the last may be
    shorter. An epoch permutes the blocks, takes `window` of them at a time, and permutes the
    records of these together. So a reader has at most `window` places in the storage at a time,
    and a batch comes out of `window` blocks that chance has put together.

    Args:
        length, seed: as in `EpochSampler`.
        block_size: records in a block.
        window: blocks that are mixed.
        from_storage: place in the storage -> record (`Records.from_storage`); None: they are equal.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        block_size: int,
        window: int,
        from_storage: Order | None = None,
    ) -> None:
        super().__init__(length, seed=seed)
        if block_size < 1 or window < 1:
            raise ValueError(f"expected block_size, window >= 1, got {block_size}, {window}")
        self.block_size, self.window = block_size, window
        self._from_storage = from_storage
        self._last = 0, self._new_order(0)

    def order(self, epoch: int) -> Order:
        """Offset in the epoch -> record."""
        places = self.places(epoch)
        return places if self._from_storage is None else _Chain(places, self._from_storage)

    def places(self, epoch: int) -> "BlockOrder":
        """Offset in the epoch -> place in the storage."""
        last_epoch, order = self._last  # as one value: other threads may be here
        if epoch != last_epoch:
            order = self._new_order(epoch)
            self._last = epoch, order
        return order

    def _new_order(self, epoch: int) -> "BlockOrder":
        seed = stream_seed(self.seed, "epoch", epoch)
        return BlockOrder(self.length, block_size=self.block_size, window=self.window, seed=seed)

    def ahead(self, first: int, count: int, *, begins: bool = False) -> Int64Array:
        """Blocks of the window after that of each position: of these the share that [first,
        first + count) are of their own window. So what is read is asked for a window early, a
        little at every batch, whoever makes it. Who begins asks for what should be under way."""
        found = []
        position, stop = first, first + count
        while position < stop:
            window = self._window_at(position)
            if begins and position == first:
                found.append(window.part(0, 1))
                position = window.start
            end = min(stop, window.stop)
            share = ((each - window.start) / (window.stop - window.start)
                     for each in (position, end))  # fmt: skip
            found.append(self._window_at(window.stop).part(*share))
            position = end
        places = np.concatenate(found) if found else _NONE
        return places if self._from_storage is None else self._from_storage(places)

    def _window_at(self, position: int) -> "_Window":
        epoch, offset = divmod(position, self.length)
        order = self.places(epoch)
        number = int(order.window_of(np.array([offset]))[0])
        start, stop = order.borders(number)
        return _Window(order, number, start + epoch * self.length, stop + epoch * self.length)


@dataclass(frozen=True)
class _Window:
    """Window `number` of an epoch, at positions [start, stop)."""

    order: "BlockOrder"
    number: int
    start: int
    stop: int

    def part(self, begin: float, end: float) -> Int64Array:
        """Places of the blocks from share `begin` to share `end` of it."""
        count = self.order.num_blocks_in(self.number)
        slots = np.arange(int(begin * count), int(end * count))
        return self.order.contents(slots + self.number * self.order.window)


class _Chain:
    """One order after another."""

    def __init__(self, first: Order, second: Order) -> None:
        self._first, self._second = first, second

    def __call__(self, offsets: Int64Array) -> Int64Array:
        return self._second(self._first(offsets))


class BlockOrder:
    """The order of one epoch: offset -> place in the storage.

    Blocks stand in a row of *slots*; all are of one size but the last block, whose slot `_short`
    is found by the inverse of their permutation. Slots behind it begin `_gap` offsets earlier. That
    is all it takes to say where a slot begins and which one an offset is in.
    """

    def __init__(self, length: int, *, block_size: int, window: int, seed: int) -> None:
        self._length, self._block_size, self.window, self._seed = length, block_size, window, seed
        self.num_blocks = -(-length // block_size)
        self.num_windows = -(-self.num_blocks // window)
        self._blocks = Permutation(self.num_blocks, seed=stream_seed(seed, "blocks"))
        self._gap = self.num_blocks * block_size - length  # missing in the last block
        self._short = self._blocks.position_of(self.num_blocks - 1)

    def __call__(self, offsets: Int64Array) -> Int64Array:
        windows = self.window_of(offsets)
        places = np.empty_like(offsets)
        for window in np.unique(windows):
            here = windows == window
            places[here] = self._in_window(int(window), offsets[here])
        return places

    def window_of(self, offsets: Int64Array) -> Int64Array:
        """Which window each offset is in, int64 [B]."""
        return self._slot_of(offsets) // self.window

    def borders(self, window: int) -> tuple[int, int]:
        """Offsets [start, stop) of a window."""
        slots = np.array([window, min(window + 1, self.num_windows)]) * self.window
        start, stop = self._start_of(slots).tolist()
        return start, min(stop, self._length)

    def num_blocks_in(self, window: int) -> int:
        """Blocks of a window: fewer in the last one."""
        return min(self.window, self.num_blocks - window * self.window)

    def contents(self, slots: Int64Array) -> Int64Array:
        """All places of the blocks in `slots`, int64."""
        first = self._blocks(slots) * self._block_size
        places = (first[:, None] + np.arange(self._block_size)).reshape(-1)
        return places[places < self._length]

    def _in_window(self, window: int, offsets: Int64Array) -> Int64Array:
        start, stop = self.borders(window)
        mixed = Permutation(stop - start, seed=stream_seed(self._seed, "window", window))
        offsets = mixed(offsets - start) + start
        slots = self._slot_of(offsets)
        return self._blocks(slots) * self._block_size + (offsets - self._start_of(slots))

    def _start_of(self, slots: Int64Array) -> Int64Array:
        return slots * self._block_size - np.where(slots > self._short, self._gap, 0)

    def _slot_of(self, offsets: Int64Array) -> Int64Array:
        behind = offsets >= (self._short + 1) * self._block_size - self._gap
        return (offsets + np.where(behind, self._gap, 0)) // self._block_size

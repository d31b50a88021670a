"""Rows of the next step on the device that computes, fetched while this step computes.

For tables whose rows lie elsewhere, in host memory for a GPU. What the next step draws is known a
step early but for its batch's own classes; its rows are gathered and copied in a thread. A row that
both steps have is written by this one after it was fetched, or meanwhile: such rows are noted and
taken again when their step begins. From then on what is written goes to the table and to the stage,
so that neither is ever stale. Rows that were not foreseen are read from the table.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

from manyface.centers.place import free_bytes
from manyface.centers.read_ahead import Draw, RowBlocks

# (rows or state by name, ids int64 [n]) -> these rows on the device that computes.
Fetch = Callable[[str, Tensor], Tensor]
# Rows that are fetched at a time: what a GPU copies them from is pinned memory of the host.
_ROWS_AT_A_TIME = 4096


class Stage:
    """Copies of some rows and of their state.

    Args:
        ids: int64 [K], sorted, distinct, on the CPU.
        tensors: [K, ...] by name, on the device that computes.
    """

    def __init__(self, ids: Tensor, tensors: Mapping[str, Tensor]) -> None:
        self.ids, self.tensors = ids, tensors

    def read(self, name: str, ids: Tensor, fetch: Fetch) -> Tensor:
        """Rows `ids` [n, ...], a copy; those that are not here by `fetch`."""
        places, here = self._find(ids)
        tensor = self._used(name)
        found = tensor.index_select(0, places.to(tensor.device))
        if not bool(here.all()):
            missing = (~here).nonzero().squeeze(1)
            found[missing.to(found.device)] = fetch(name, ids[missing])
        return found

    def write(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Rows `ids` are now `values` [n, ...], wherever these lie."""
        places, here = self._find(ids)
        tensor = self._used(name)
        kept = values if bool(here.all()) else values[here.to(values.device)]
        tensor[places[here].to(tensor.device)] = kept.to(tensor)

    def _used(self, name: str) -> Tensor:
        """[K, ...]; a GPU's memory stays its own until the stream that asks is done with it."""
        tensor = self.tensors[name]
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream(tensor.device))
        return tensor

    def _find(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Places of `ids` here, int64 [n], 0 for those that are not; whether they are."""
        places = torch.searchsorted(self.ids, ids).clamp_max_(max(len(self.ids) - 1, 0))
        here = self.ids[places] == ids if len(self.ids) else torch.zeros_like(ids, dtype=torch.bool)
        return torch.where(here, places, 0), here


class Staging:
    """The stage of the step that is under way, and that of the next one in the making."""

    def __init__(self) -> None:
        self.current: Stage | None = None
        self._coming: Future[Stage | None] | None = None
        self._written: list[Tensor] = []  # ids, since the coming one was begun
        self._thread: ThreadPoolExecutor | None = None
        self._side: torch.cuda.Stream | None = None

    def __reduce__(self) -> tuple[type["Staging"], tuple[()]]:
        """A copy has nothing staged."""
        return Staging, ()

    def begin(
        self, draw: Draw, names: list[str], num_rows: int, fetch: Fetch, device: torch.device
    ) -> None:
        """Fetch in a thread what `draw` gives; not while there is one that was not taken."""
        if self._coming is not None:
            return
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="staging")
        self._written.clear()
        side = self._side_stream(device)
        self._coming = self._thread.submit(_fetched, draw, names, num_rows, fetch, device, side)

    def take(self, fetch: Fetch) -> Stage | None:
        """The stage of the step that begins; raises what its `draw` has raised."""
        if self.current is None and self._coming is not None:
            coming, self._coming = self._coming, None
            self.current = coming.result()
            if self.current is not None:
                self._take_again(self.current, fetch)
        return self.current

    def turn(self) -> None:
        """The step is done."""
        self.current = None

    def drop(self) -> None:
        """Rows have changed in a way that nobody noted."""
        if self._coming is not None:
            self._coming.cancel() or self._coming.exception()
        self.current = self._coming = None

    def note(self, ids: Tensor) -> None:
        """Rows `ids` have been written to the table."""
        if self._coming is not None:
            self._written.append(ids)

    def _side_stream(self, device: torch.device) -> torch.cuda.Stream | None:
        """Of all copies to a GPU: what one stream has freed, torch gives to no other."""
        if device.type != "cuda":
            return None
        if self._side is None or self._side.device != device:
            self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._side

    def _take_again(self, stage: Stage, fetch: Fetch) -> None:
        for ids in self._written:
            common = ids[torch.isin(ids, stage.ids)]
            for name in stage.tensors if len(common) else ():
                stage.write(name, common, fetch(name, common))
        self._written.clear()


def _fetched(
    draw: Draw,
    names: list[str],
    num_rows: int,
    fetch: Fetch,
    device: torch.device,
    side: torch.cuda.Stream | None,
) -> Stage | None:
    """None if it would take more than half of what is free, or others have taken that meanwhile."""
    ids = ids_of(draw(), num_rows)
    with suppress(torch.OutOfMemoryError), torch.cuda.stream(side):
        first = {name: fetch(name, ids[:1]) for name in names}
        each, free = sum(row.nbytes for row in first.values()), free_bytes(device)
        if len(ids) and (free is None or each * len(ids) <= free // 2):
            tensors = {name: _in_pieces(name, ids, fetch, like=first[name]) for name in names}
            if side is not None:
                side.synchronize()
            return Stage(ids, tensors)
    return None


def _in_pieces(name: str, ids: Tensor, fetch: Fetch, *, like: Tensor) -> Tensor:
    """Rows `ids` [n, ...], where and of what kind `like` [1, ...] is."""
    found = like.new_empty(len(ids), *like.shape[1:])
    pieces = (torch.split(each, _ROWS_AT_A_TIME) for each in (found, ids))
    for place, some in zip(*pieces, strict=True):
        place.copy_(fetch(name, some))
    return found


def ids_of(blocks: RowBlocks, num_rows: int) -> Tensor:
    """Rows of blocks, int64 [n], sorted, each once."""
    starts = torch.from_numpy(blocks.starts)
    ids = (starts[:, None] + torch.arange(blocks.size)).flatten()
    found: Tensor = torch.unique(ids[ids < num_rows])
    return found

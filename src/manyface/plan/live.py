"""Bytes of tensors that are alive at once while something runs, counted operation by operation.

What an operation takes inside and gives back is not seen, nor what an allocator keeps.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows the storages that were made inside and are still referred to, and those from before."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, tuple[Any, int]] = {}
        self._older: dict[int, Any] = {}  # weakly held, lest another one gets the same address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._forget_freed()
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._alive:
                self._older.setdefault(storage._cdata, _weakly(storage))
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in self._older:
                self._alive[storage._cdata] = (_weakly(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result

    def _forget_freed(self) -> None:
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}


def _storages(tree: Any) -> list[UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _weakly(storage: UntypedStorage) -> Any:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def live_bytes(run: Callable[[], object]) -> int:
    """The most that `run` has alive at once of what it makes."""
    with _LiveBytes() as live:
        run()
    peak: int = live.peak
    return peak

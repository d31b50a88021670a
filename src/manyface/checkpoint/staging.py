"""A copy of a state in host memory, made fast: memory is kept, touched beforehand and reused."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from manyface.base.threads import usable_cores, use_one_core
from manyface.checkpoint.tables import RowShard

State = Mapping[str, Mapping[str, Tensor | RowShard]]  # group -> name ->

_ALIGNED = 64  # bytes; more than any dtype needs
_PIECE_BYTES = 1 << 26
_MOST_THREADS = 8


class Staging:
    """Host memory that holds one copy of a state at a time."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    @property
    def num_bytes(self) -> int:
        """Memory that is kept."""
        return self._memory.nbytes

    def reserve(self, state: State) -> None:
        """Have memory for `state`, every page of it touched: else the first copy would wait."""
        wanted = bytes_to_stage(state)
        if wanted <= self.num_bytes:
            return
        self._memory = torch.empty(0, dtype=torch.uint8)  # not both at once
        self._memory = torch.empty(wanted, dtype=torch.uint8, pin_memory=_is_on_gpu(state))
        _in_threads(Tensor.zero_, ((piece,) for piece in torch.split(self._memory, _PIECE_BYTES)))

    def copy(self, state: State) -> dict[str, dict[str, Tensor | RowShard]]:
        """`state` as it is now; what an earlier call gave is overwritten."""
        self.reserve(state)
        place, copied = 0, {}
        moves: list[tuple[Tensor, Tensor]] = []
        for group, members in state.items():
            copied[group] = dict(members)
            for name, tensor in members.items():
                values = tensor.values if isinstance(tensor, RowShard) else tensor
                copy = self._memory[place : place + values.nbytes].view(values.dtype)
                copy = copy.view(values.shape)
                moves += _pieces(copy, values.detach())
                copied[group][name] = (
                    RowShard(copy, tensor.shard) if isinstance(tensor, RowShard) else copy
                )
                place += _aligned(values.nbytes)
        _in_threads(Tensor.copy_, moves)
        return copied


def bytes_to_stage(state: State) -> int:
    """Memory that a copy of this rank's `state` takes."""
    wanted = sum(_aligned(values.nbytes) for values in _values(state))
    return _power_of_two(wanted) if _is_on_gpu(state) else wanted  # torch's pinned memory is so


def _is_on_gpu(state: State) -> bool:
    return any(values.is_cuda for values in _values(state))


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length() if least else 0


def _values(state: State) -> Iterable[Tensor]:
    for members in state.values():
        for tensor in members.values():
            yield tensor.values if isinstance(tensor, RowShard) else tensor


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNED) * _ALIGNED


def _pieces(to: Tensor, source: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A big tensor by rows, so that several threads have something to do."""
    if source.nbytes <= _PIECE_BYTES or source.ndim == 0:
        return [(to, source)]
    rows = max(1, _PIECE_BYTES * source.shape[0] // source.nbytes)
    return list(zip(torch.split(to, rows), torch.split(source, rows), strict=True))


def _in_threads(act: Callable[..., object], arguments: Iterable[tuple[Tensor, ...]]) -> None:
    """`act(*each)` for each of `arguments`; torch frees the interpreter lock meanwhile."""
    threads = min(usable_cores(), _MOST_THREADS)
    with ThreadPoolExecutor(threads, "staging", initializer=use_one_core) as pool:
        for done in [pool.submit(act, *each) for each in arguments]:
            done.result()

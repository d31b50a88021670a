"""The collectives of training, named and counted, with nothing done where there is one process.

Every call is made by all ranks in the same order. `sent` counts the bytes that this rank passed in,
by the name of the collective: the docstrings say how many they are, tests compare.

A collective that fails, because a rank died, hangs or does something else, raises `PeerError` with
its name and the rank; `HERE` is what this process is at, for the others to read (`heartbeat`).
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from manyface.base.errors import ConfigError, PeerError

# torch 2.13 gave them new names; the floor is 2.10.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def is_distributed() -> bool:
    """Whether this process belongs to several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@dataclass
class Activity:
    """What a process is at.

    Attributes:
        step: updates that it has made.
        has_failed: a collective has; the process says why and ends.
    """

    step: int = 0
    has_failed: bool = False
    _places: dict[int, tuple[str, float]] = field(default_factory=dict)  # thread -> name, since

    def begin(self, doing: str) -> str:
        """This thread is in the collective `doing` from now on, "" for none; returns the last."""
        before, _ = self._places.get(threading.get_ident(), ("", 0.0))
        if doing:
            self._places[threading.get_ident()] = (doing, time.monotonic())
        else:
            self._places.pop(threading.get_ident(), None)
        return before

    def as_dict(self) -> dict[str, Any]:
        """For others: seconds in each collective instead of a time on the clock of this machine."""
        now = time.monotonic()
        doing = {name: now - since for name, since in list(self._places.values())}
        return {"step": self.step, "doing": doing, "has_failed": self.has_failed}


HERE = Activity()


@dataclass
class Pending:
    """A collective under way; `wait` gives its result."""

    _finish: Callable[[], Tensor]

    def wait(self) -> Tensor:
        """The result, once it is there."""
        return self._finish()


class Ranks:
    """The ranks of a process group; one rank alone outside of torch.distributed.

    Args:
        group: None is all processes.
        alone: this process and no other, whatever there is.
        in_background: they talk in a thread of their own, beside what `HERE` tells of.

    Attributes:
        rank: of this process, from 0.
        size: number of ranks.
        sent: bytes passed to each collective by this rank, by name.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        alone: bool = False,
        in_background: bool = False,
    ) -> None:
        self._group, self._is_asked_alone = group, alone
        self._activity = Activity() if in_background else HERE
        together = is_distributed() and not alone
        self.rank = dist.get_rank(group) if together else 0
        self.size = dist.get_world_size(group) if together else 1
        self.sent: Counter[str] = Counter()

    def __deepcopy__(self, memo: object) -> "Ranks":
        return self  # a copy of a head belongs to the same processes

    def __reduce__(self) -> tuple[type["Ranks"], tuple[()]]:
        return Ranks, ()

    def check_current(self) -> None:
        """Raise ConfigError if torch.distributed came to be after this was made."""
        if self.is_alone and not self._is_asked_alone and is_distributed():
            raise ConfigError(
                "this was made before torch.distributed was initialised, so its class centers are "
                "not shared: call init_process_group first, or give it ranks=ALONE to keep them so"
            )

    @property
    def is_alone(self) -> bool:
        """Whether there is no other rank."""
        return self.size == 1

    def sum_(self, values: Tensor, name: str) -> Tensor:
        """`values` summed over ranks, in place: an all-reduce of their bytes."""
        return self._reduce_(values, name, dist.ReduceOp.SUM)

    def max_(self, values: Tensor, name: str) -> Tensor:
        """The largest over ranks, in place: an all-reduce of their bytes."""
        return self._reduce_(values, name, dist.ReduceOp.MAX)

    def counts(self, *numbers: int, name: str) -> list[list[int]]:
        """Every rank's `numbers`: an all-gather of 8 bytes each."""
        mine = torch.tensor(numbers, device=self.talks_on)
        everyone = self._gather_equal(mine, name).wait()
        found: list[list[int]] = everyone.view(self.size, -1).tolist()
        return found

    def agree(self, *numbers: int, name: str) -> list[int]:
        """The largest of every rank's `numbers`, one by one: an all-reduce of 8 bytes each."""
        if self.is_alone:
            return list(numbers)
        found: list[int] = self.max_(torch.tensor(numbers, device=self.talks_on), name).tolist()
        return found

    def gather(self, values: Tensor, counts: Sequence[int], name: str) -> Pending:
        """Rows of all ranks, [sum(counts), ...], of `values` [counts[rank], ...].

        An all-gather of max(counts) rows of each: shorter ranks are padded.
        """
        if self.is_alone:
            return Pending(lambda: values)
        longest = max(counts)
        padded = self._gather_equal(_padded(values, longest), name)
        return Pending(lambda: _without_padding(padded.wait(), counts, longest))

    def scatter_sum(self, values: Tensor, counts: Sequence[int], name: str) -> Pending:
        """This rank's rows [counts[rank], ...] of `values` [sum(counts), ...] summed over ranks.

        A reduce-scatter of size * max(counts) rows.
        """
        if self.is_alone:
            return Pending(lambda: values)
        longest = max(counts)
        parts = [_padded(part, longest) for part in torch.split(values, list(counts))]
        outgoing = torch.cat(parts)
        mine = torch.empty_like(outgoing[:longest])
        self._count(outgoing, name)
        with self._named(name):
            work = _reduce_scatter(mine, outgoing, group=self._group, async_op=True)
        return Pending(lambda: self._done(work, mine, name)[: counts[self.rank]])

    def say(self, text: str, name: str) -> list[str]:
        """Every rank's `text`, in the order of ranks; for what is said rarely. No pickles."""
        if self.is_alone:
            return [text]
        said = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else _NOTHING
        said = said.to(self.talks_on)
        counts = [row[0] for row in self.counts(len(said), name=name)]
        everything = self.gather(said, counts, name).wait().cpu().numpy().tobytes()
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        return [everything[start:stop].decode() for start, stop in pairwise(ends)]

    def wait_for_all(self, name: str) -> None:
        """Go on when every rank has come here."""
        if not self.is_alone:
            self.counts(0, name=name)

    def beside(self, seconds: float) -> "Ranks":
        """All ranks, over a group of their own for a thread beside training; all call this.

        Args:
            seconds: that a rank waits for another in its collectives, tensors of the CPU.
        """
        if self.is_alone:
            return self
        with self._named("a group beside training"):
            group = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
        return Ranks(group, in_background=True)

    @property
    def talks_on(self) -> torch.device:
        """A device whose tensors the group can carry."""
        backend = "gloo" if self.is_alone else str(dist.get_backend(self._group))
        return torch.device("cpu" if "gloo" in backend or backend == "undefined" else "cuda")

    def _reduce_(self, values: Tensor, name: str, how: dist.ReduceOp.RedOpType) -> Tensor:
        if not self.is_alone:
            self._count(values, name)
            with self._named(name):
                dist.all_reduce(values, op=how, group=self._group)
        return values

    def _gather_equal(self, values: Tensor, name: str) -> Pending:
        if self.is_alone:
            return Pending(lambda: values)
        values = values.contiguous()
        everything = values.new_empty(self.size * values.shape[0], *values.shape[1:])
        self._count(values, name)
        with self._named(name):
            work = _all_gather(everything, values, group=self._group, async_op=True)
        return Pending(lambda: self._done(work, everything, name))

    def _done(self, work: dist.Work, result: Tensor, name: str) -> Tensor:
        with self._named(name):
            work.wait()
        return result

    def _count(self, values: Tensor, name: str) -> None:
        self.sent[name] += values.nbytes

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        """Inside, collectives are made that are not made here (DistributedDataParallel's): one that
        fails is a PeerError under this name, other errors stay what they are."""
        with self._named(name, is_failure=_is_of_a_collective):
            yield

    @contextmanager
    def _named(
        self, name: str, is_failure: Callable[[Exception], bool] = lambda error: True
    ) -> Iterator[None]:
        before = self._activity.begin(name)
        try:
            yield
        except RuntimeError as error:
            if self.is_alone or not is_failure(error):
                raise
            self._activity.has_failed = True
            raise PeerError(name, rank=self.rank, size=self.size, error=error) from error
        self._activity.begin(before)


ALONE = Ranks(alone=True)
_NOTHING = torch.empty(0, dtype=torch.uint8)
_OF_COLLECTIVES = (
    "gloo",
    "NCCL",
    "c10d",
    "Connection closed by peer",
    "Timed out waiting",
    "Application timeout caused pair closure",  # another collective under way ran out of time
)


def _is_of_a_collective(error: Exception) -> bool:
    """By its words: gloo has no class of its own for them, and not all come from a file of gloo."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in _OF_COLLECTIVES)


def _padded(values: Tensor, length: int) -> Tensor:
    """`values` with rows of zeros behind them, [length, ...]."""
    missing = length - values.shape[0]
    if missing == 0:
        return values
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])])


def _without_padding(values: Tensor, counts: Sequence[int], longest: int) -> Tensor:
    if all(count == longest for count in counts):
        return values
    parts = torch.split(values, longest) if longest else []
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=False)])

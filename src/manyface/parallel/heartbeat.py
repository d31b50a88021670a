"""Which rank is at fault when a collective fails: each one says once a second what it is at.

A collective that fails says little: a connection was closed, or nobody came for two minutes. So
every rank writes a line into the store of the group, from a thread of its own: a number that grows,
the step, and the collective it is in. Whose number stands still is dead, stopped, or has its
interpreter held; who is in no collective, or in another one, is late or out of step. Who has said
that it failed is not silent. A rank that hangs while others have failed ends itself: its launcher
would wait for it.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, Self

from torch.distributed import distributed_c10d

from manyface.base.errors import PeerError
from manyface.parallel.ranks import HERE, Ranks

_INTERVAL, _PATIENCE = 1.0, 2.5  # seconds between two lines; seconds in which a living rank wrote
_FAILED = "failed"  # key of what the first rank that failed has said
_GRACE = 4.0  # seconds that a rank has to find out by itself what others have found


@dataclass(frozen=True)
class Word:
    """What a rank has said last.

    Attributes:
        number: grows with every line.
        step: updates that it had made.
        doing: the collectives that its threads were in, and for how many seconds.
        has_failed: it has found another one at fault.
    """

    number: int
    step: int
    doing: dict[str, float]
    has_failed: bool

    def describe(self) -> str:
        """In words."""
        places = [f"in {name!r} for {seconds:.0f} s" for name, seconds in self.doing.items()]
        return f"{' and '.join(places) or 'in no collective'}, after step {self.step}"


class Heartbeat:
    """Writes this rank's lines inside the block; a `PeerError` that leaves it names who is silent.

    Args:
        ranks: that a launcher has begun.
        interval: seconds between two lines.
    """

    def __init__(self, ranks: Ranks, *, interval: float = _INTERVAL) -> None:
        self._ranks, self._interval = ranks, interval
        self._over = threading.Event()
        store = distributed_c10d._get_default_store()
        if hasattr(store, "clone"):  # not to wait for the other's
            with suppress(RuntimeError):  # it is gone: the first collective will say so
                store = store.clone()
        store.set_timeout(timedelta(seconds=2 * _PATIENCE))
        self._store = distributed_c10d.PrefixStore("manyface heartbeat", store)
        self._thread = threading.Thread(target=self._write, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, PeerError) and not error.is_explained:
                HERE.has_failed = True  # in a thread that saves, perhaps
                error.explain(self.suspects(error.collective))
                _in_time(lambda: self._tell(_FAILED, str(error)), 1)
                if self._ranks.rank == 0:  # it may hold the store; others look once an interval
                    time.sleep(1.5 * self._interval)
        finally:
            self._over.set()
            self._thread.join(1)

    def suspects(self, collective: str) -> str:
        """Who is not where this rank is, in words; waits until the living must have written."""
        found: list[str] = []
        _in_time(lambda: found.append(self._compare(collective)), 1.5 * _PATIENCE)
        if found:
            return found[0]
        return (
            "the store of the group does not answer: rank 0, its machine or the way to it is gone"
        )

    def _compare(self, collective: str) -> str:
        others = [rank for rank in range(self._ranks.size) if rank != self._ranks.rank]
        try:
            before = [self._read(rank) for rank in others]
            time.sleep(_PATIENCE * self._interval)
            after = [self._read(rank) for rank in others]
        except RuntimeError:
            return "the store of the group is closed: rank 0 or its machine is gone"
        return "; ".join(_judge(others, before, after, collective)) or "all ranks answer"

    def _write(self) -> None:
        number, failed_at, reason = 0, math.inf, ""
        while not self._over.is_set():
            number += 1
            self._tell(str(self._ranks.rank), json.dumps({"number": number, **HERE.as_dict()}))
            if not reason and (reason := self._why_others_failed()):
                failed_at = time.monotonic()
            if time.monotonic() - failed_at > _GRACE and not HERE.has_failed:
                self._end(reason)
            self._over.wait(self._interval)

    def _tell(self, key: str, text: str) -> None:
        with suppress(RuntimeError):  # the store is gone: whoever reads will say so
            self._store.set(key, text)

    def _why_others_failed(self) -> str:
        """In the words of the first that did; "" if none has. Not asked later: rank 0, which ends
        then, may hold the store."""
        with suppress(RuntimeError):
            if self._store.check([_FAILED]):
                return self._store.get(_FAILED).decode()
        return ""

    def _end(self, reason: str) -> NoReturn:
        """This process, from this thread: the one that trains does not come back."""
        text = f"error: rank {self._ranks.rank} hangs after step {HERE.step} and ends: {reason}\n"
        with suppress(OSError):
            os.write(sys.stderr.fileno(), text.encode())
        os._exit(PeerError.exit_code)

    def _read(self, rank: int) -> Word | None:
        if not self._store.check([str(rank)]):
            return None
        found: dict[str, Any] = json.loads(self._store.get(str(rank)))
        return Word(**found)


def _in_time(action: Callable[[], object], seconds: float) -> None:
    """Do it, or give it up: where a cable is cut the store is silent for a quarter of an hour."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)


def _judge(
    ranks: Sequence[int],
    before: Sequence[Word | None],
    after: Sequence[Word | None],
    collective: str,
) -> list[str]:
    """A phrase for each of `ranks` that is silent, or not in `collective`; else for all who failed
    before this one: it came too late."""
    found = []
    for rank, old, new in zip(ranks, before, after, strict=True):
        if new is None:
            found.append(f"rank {rank} was never heard of")
        elif old is not None and old.number == new.number and not new.has_failed:
            found.append(f"rank {rank} does not answer any more (last {new.describe()})")
        elif collective not in new.doing:
            found.append(f"rank {rank} is {new.describe()}")
    early = [rank for rank, old in zip(ranks, before, strict=True) if old and old.has_failed]
    return found or [f"rank {rank} had failed in it before" for rank in early]

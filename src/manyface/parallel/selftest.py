"""Whether ranks can train together: checks that all of them make at once, before a long run.

Every check is called by all ranks in the same order and gives all of them the same `Check`, but for
`roll_call`, which the first rank alone can answer for. A rank that does not come to a check is
named after `seconds`, by the first one: `Absent` ends the test.

Facts are what a rank says of itself, by name; `check_same` and its like look at those of all ranks.
"""

import json
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from manyface.base.errors import ManyfaceError
from manyface.parallel.ranks import Ranks

State = Literal["OK", "WARNING", "FAILED"]
OK: State = "OK"
WARNING: State = "WARNING"
FAILED: State = "FAILED"
MOST_SKEW = 2.0  # seconds; torchrun's rendezvous compares the clocks of machines
SIZES = (2**10, 2**24)  # bytes of a rank: the first shows latency, the second bandwidth
_ROUNDS = 5
_PATIENCE = 5.0  # seconds until another machine sees a file, on file systems that remember names
_PAUSE = 0.05

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        name: of the check.
        state: OK, WARNING or FAILED.
        text: figures, or which ranks differ and what to do.
    """

    name: str
    state: State
    text: str


class Absent(ManyfaceError):
    """Ranks that did not come to a check in time."""


class Store(Protocol):
    """What is needed of `torch.distributed.Store`."""

    def set(self, key: str, value: str, /) -> None:
        """Write."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all are there."""


# --- who is there ---------------------------------------------------------------------------------


@contextmanager
def joined(*, seconds: float) -> Iterator[Ranks]:
    """The ranks that the launcher has begun, inside the block, over gloo whatever the device.

    Args:
        seconds: that a rank waits for others, then and in every collective.

    Raises:
        Absent: ranks have not come; it names them.
        ManyfaceError: the rendezvous failed.
    """
    patience = timedelta(seconds=seconds)
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, rank, size = next(rendezvous("env://", timeout=patience))
        store = dist.PrefixStore("selftest", store)  # type: ignore[attr-defined]
        meet(store, rank=rank, size=size, seconds=seconds)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=patience)
    except (RuntimeError, ValueError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise ManyfaceError(f"the ranks cannot meet at {place}: {cause}") from error
    try:
        yield Ranks()
    finally:
        dist.destroy_process_group()


def meet(store: Store, *, rank: int, size: int, seconds: float) -> None:
    """Wait until every rank has come to the store of the rendezvous.

    Raises:
        Absent: some have not; it names them.
    """
    store.set(_place(rank), "here")
    end = time.monotonic() + seconds
    missing = list(range(size))
    while missing := [rank for rank in missing if not store.check([_place(rank)])]:
        if time.monotonic() > end:
            raise Absent(f"{ranks_text(missing)} of {size} did not come within {seconds:g} s")
        time.sleep(_PAUSE)


def _place(rank: int) -> str:
    return f"here-{rank}"


def roll_call(ranks: Ranks, name: str, *, seconds: float) -> None:
    """Wait until every rank has come to the check `name`; torch.distributed's group is gloo's.

    Raises:
        Absent: on the first rank, naming those that have not come; on others, saying that it or one
            of them has not.
    """
    if ranks.is_alone:
        return
    try:
        dist.monitored_barrier(timeout=timedelta(seconds=seconds), wait_all_ranks=True)
    except RuntimeError as error:
        cause = str(error).strip().partition("\n")[0]
        raise Absent(f"not all ranks came to {name!r} within {seconds:g} s: {cause}") from error


def tell(ranks: Ranks, facts: Facts) -> list[Facts]:
    """Facts of every rank, in the order of ranks; they are JSON."""
    return [json.loads(text) for text in ranks.say(json.dumps(facts), "facts")]


# --- what all must have alike ---------------------------------------------------------------------


def check_same(name: str, values: Sequence[object]) -> Check:
    """Whether all ranks have the same value; else who has another than most."""
    counts = {
        text: [r for r, v in enumerate(values) if str(v) == text] for text in map(str, values)
    }
    usual = max(counts, key=lambda text: len(counts[text]))
    others = [f"{ranks_text(who)}: {text}" for text, who in counts.items() if text != usual]
    if not others:
        return Check(name, OK, usual)
    return Check(name, FAILED, f"{'; '.join(others)}; the others: {usual}")


def check_placement(devices: Sequence[tuple[str, str]]) -> Check:
    """Whether no two ranks compute on one GPU, of (host, device) of each."""
    users: dict[tuple[str, str], list[int]] = {}
    for rank, place in enumerate(devices):
        users.setdefault(place, []).append(rank)
    shared = [
        f"{ranks_text(who)} share {device} of {host}"
        for (host, device), who in users.items()
        if len(who) > 1 and device.startswith("cuda")
    ]
    if shared:
        return Check("devices", FAILED, f"{'; '.join(shared)}; start one rank for each GPU")
    hosts = len({host for host, _ in devices})
    return Check("devices", OK, f"{len(devices)} ranks on {hosts} host{'s' if hosts > 1 else ''}")


def check_clock(ranks: Ranks, *, now: Callable[[], float] = time.time) -> Check:
    """How far the clocks of ranks are apart: asked right after they have met, the middle of rounds.

    An all-gather is over on all ranks within some milliseconds, which is what this cannot see.
    """
    rounds = []
    for _ in range(_ROUNDS):
        ranks.wait_for_all("clock")
        told = tell(ranks, {"now": now()})
        rounds.append([each["now"] - told[0]["now"] for each in told])
    ahead = [statistics.median(column) for column in zip(*rounds, strict=True)]
    middle = statistics.median(ahead)
    skew = max(ahead) - min(ahead)
    if skew <= MOST_SKEW:
        return Check("clock", OK, f"within {skew:.3f} s")
    off = [f"rank {r} {a - middle:+.1f} s" for r, a in enumerate(ahead) if abs(a - middle) > 1.0]
    return Check("clock", WARNING, f"{skew:.1f} s apart ({', '.join(off)}); set them by NTP")


# --- a folder that all see ------------------------------------------------------------------------


def check_folder(
    ranks: Ranks,
    folder: Path,
    *,
    patience: float = _PATIENCE,
    roll: Callable[[str], None] = lambda name: None,
) -> Check:
    """Whether what the first rank writes and renames in `folder` is seen by all.

    `roll` is called where a rank may hang in its file system, before others wait for its answer.
    """
    token = ranks.say(secrets.token_hex(8), "token")[0]
    first, second = folder / f".selftest-{token}", folder / f".selftest-{token}-renamed"
    name = "folder"
    try:
        problem = _on_first(ranks, lambda: first.write_text(token, encoding="utf-8"))
        if problem:
            return Check(name, FAILED, f"rank 0 cannot write into {folder}: {problem}")
        is_blind = not _sees(first, token, patience)
        roll(name)
        if blind := _who(ranks, is_blind):
            text = f"what rank 0 writes into {folder} is not seen by {ranks_text(blind)}"
            return Check(name, FAILED, f"{text}; take a file system that all machines share")
        problem = _on_first(ranks, lambda: first.rename(second))
        if problem:
            return Check(name, FAILED, f"rank 0 cannot rename in {folder}: {problem}")
        is_blind = not (_sees(second, token, patience) and _is_gone(first, patience))
        roll(name)
        if blind := _who(ranks, is_blind):
            return Check(name, FAILED, f"a rename in {folder} is not seen by {ranks_text(blind)}")
    finally:
        if ranks.rank == 0:
            for path in (first, second):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
    return Check(name, OK, f"all see files and renames in {folder}")


def _on_first(ranks: Ranks, act: Callable[[], object]) -> str:
    """What went wrong on the first rank, told to all; "" if nothing."""
    problem = ""
    if ranks.rank == 0:
        try:
            act()
        except OSError as error:
            problem = error.strerror or str(error)
    return ranks.say(problem, "problem")[0]


def _sees(path: Path, content: str, patience: float) -> bool:
    end = time.monotonic() + patience
    while True:
        with suppress(OSError, UnicodeDecodeError):
            if path.read_text(encoding="utf-8") == content:
                return True
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE)


def _is_gone(path: Path, patience: float) -> bool:
    end = time.monotonic() + patience
    while path.exists() and time.monotonic() < end:
        time.sleep(_PAUSE)
    return not path.exists()


def _who(ranks: Ranks, is_so: bool) -> list[int]:
    """Ranks of which it is so."""
    told = ranks.counts(int(is_so), name="answers")
    return [rank for rank, (answer,) in enumerate(told) if answer]


# --- collectives ----------------------------------------------------------------------------------


def check_collectives(
    ranks: Ranks, device: torch.device, *, sizes: tuple[int, int] = SIZES
) -> list[Check]:
    """Latency, bandwidth and results of the collectives that training uses, each at two sizes."""
    if ranks.is_alone:
        return [Check("collectives", OK, "one rank needs none")]
    return [_check_collective(ranks, kind, device, sizes) for kind in _KINDS]


def _check_collective(
    ranks: Ranks, kind: str, device: torch.device, sizes: tuple[int, int]
) -> Check:
    run, share = _KINDS[kind]
    small, large = (_measure(ranks, run, device, size) for size in sizes)
    if wrong := sorted({*small.wrong, *large.wrong}):
        return Check(kind, FAILED, f"{ranks_text(wrong)} got wrong numbers")
    moved = share(ranks.size) * sizes[1]
    return Check(
        kind,
        OK,
        f"{1e6 * small.seconds:,.0f} us at {sizes[0] / 2**10:.0f} KiB, "
        f"{moved / large.seconds / 1e9:.2f} GB/s at {sizes[1] / 2**20:.0f} MiB",
    )


@dataclass(frozen=True)
class _Measured:
    """Seconds on the slowest rank, the middle of rounds; ranks with wrong results."""

    seconds: float
    wrong: list[int]


Run = Callable[[Ranks, torch.Tensor], bool]


def _measure(ranks: Ranks, run: Run, device: torch.device, size: int) -> _Measured:
    """Of collectives that a rank passes `size` bytes, or all ranks' parts of that together."""
    numbers = max(1, size // 4 // ranks.size) * ranks.size
    found, is_right = [], True
    for _ in range(_ROUNDS + 1):  # the first one connects
        values = torch.full((numbers,), float(ranks.rank + 1), device=device)
        ranks.wait_for_all("measuring")
        _finish(device)
        start = time.perf_counter()
        is_right &= run(ranks, values)
        found.append(time.perf_counter() - start)
    slowest = torch.tensor([statistics.median(found[1:])], dtype=torch.float64, device=device)
    return _Measured(float(ranks.max_(slowest, "slowest")), _who(ranks, not is_right))


def _gather(ranks: Ranks, values: torch.Tensor) -> bool:
    everything = ranks.gather(values, [len(values)] * ranks.size, "all-gather").wait()
    _finish(values.device)
    firsts = everything[:: len(values)].tolist()
    return bool(firsts == [rank + 1.0 for rank in range(ranks.size)])


def _reduce(ranks: Ranks, values: torch.Tensor) -> bool:
    ranks.sum_(values, "all-reduce")
    _finish(values.device)
    return _is_sum(ranks, values)


def _scatter(ranks: Ranks, values: torch.Tensor) -> bool:
    counts = [len(values) // ranks.size] * ranks.size
    mine = ranks.scatter_sum(values, counts, "reduce-scatter").wait()
    _finish(values.device)
    return _is_sum(ranks, mine)


def _is_sum(ranks: Ranks, values: torch.Tensor) -> bool:
    expected = ranks.size * (ranks.size + 1) / 2
    return values[0].item() == expected and values[-1].item() == expected


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# What runs, and what a rank sends of the bytes it passes in, by a ring.
_KINDS: dict[str, tuple[Run, Callable[[int], float]]] = {
    "all-gather": (_gather, lambda size: size - 1.0),
    "all-reduce": (_reduce, lambda size: 2 * (size - 1) / size),
    "reduce-scatter": (_scatter, lambda size: (size - 1) / size),
}


def ranks_text(ranks: Sequence[int]) -> str:
    """In words, neighbours together: rank 3; ranks 0-2, 5."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(parts)}"

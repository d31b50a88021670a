"""Joining the processes that a launcher has begun, and leaving them.

A launcher (torchrun, or whatever sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT) begins one
process for each GPU. Tensors of the CPU travel by gloo and tensors of a GPU by NCCL, in one group.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from manyface.base.errors import ManyfaceError
from manyface.base.orphans import die_with_launcher
from manyface.parallel.heartbeat import Heartbeat
from manyface.parallel.meeting import round_store
from manyface.parallel.ranks import HERE, Ranks

SECONDS_CPU, SECONDS_GPU = 120.0, 600.0


def launched_ranks() -> int:
    """How many processes the launcher has begun; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def ranks_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched_ranks() > 1 else 1


def is_first_rank() -> bool:
    """Whether this process speaks for all."""
    return launched_ranks() == 1 or os.environ["RANK"] == "0"


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched_ranks() > 1 else 0


def most_restarts() -> int:
    """How often torchrun may begin the processes anew."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


@contextmanager
def joined(device: torch.device, *, seconds: float = 0.0) -> Iterator[Ranks]:
    """The ranks of this process's launcher, inside the block; one rank without a launcher.

    Args:
        device: that this rank computes on.
        seconds: that a rank waits for another in a collective; 0 is 120 on CPUs, 600 on GPUs.

    Raises:
        ManyfaceError: the others cannot be met.
        PeerError: a collective failed; it says which rank is silent or elsewhere.
    """
    die_with_launcher()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # generators and kernels ask which one is current
    if launched_ranks() == 1 or dist.is_initialized():
        yield Ranks()
        return
    _meet(device, seconds)
    try:
        ranks = Ranks()
        with _patient_when_failing(), Heartbeat(ranks):
            yield ranks
    finally:
        _leave()


@contextmanager
def _patient_when_failing() -> Iterator[None]:
    """SIGTERM does not interrupt a process that is saying why a collective failed.

    When a rank dies the launcher sends it to the others at once, who know best what happened.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not HERE.has_failed:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def patience(device: torch.device, seconds: float) -> float:
    """Seconds that a rank waits for another one; 0 is the usual number of its kind of device."""
    return seconds or (SECONDS_GPU if device.type == "cuda" else SECONDS_CPU)


def _meet(device: torch.device, seconds: float) -> None:
    seconds = patience(device, seconds)
    timeout = timedelta(seconds=seconds)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=round_store(store, rank=rank, size=size, seconds=seconds),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ManyfaceError(
            f"rank {os.environ['RANK']} of {launched_ranks()} cannot meet the others at {place}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error


def _leave() -> None:
    """Without waiting for ranks that are gone."""
    if dist.is_initialized():
        dist.destroy_process_group()

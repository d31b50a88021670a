"""Real gloo processes for tests: a few hundredths of a second each, from a forkserver.

    results = on_ranks(function, 3, argument)  # what function(argument) gave on rank 0, 1 and 2

The server has torch loaded, so a rank is a fork. Functions and arguments are pickled by name: they
must be importable, from a test file too. A rank that fails makes the test fail with its traceback;
one that hangs, with its name.
"""

import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PRELOADED = [
    "torch",
    "torch.distributed",
    "torch.distributed.checkpoint",
    "manyface",
    "manyface.heads",
    "manyface.train",
    "manyface.cli.train",
    "torch.distributed.launcher.api",
]
SECONDS = 60.0


def wait_for_file(path: Path, seconds: float) -> None:
    """Until another rank has made `path`, but no longer than that."""
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def on_ranks(
    function: Callable[..., Any], size: int, *arguments: Any, seconds: float = SECONDS
) -> list[Any]:
    """What `function(*arguments)` returns on each of `size` ranks of a gloo group."""
    results = outcomes(function, size, *arguments, seconds=seconds)
    for rank, (is_right, result) in enumerate(results):
        assert is_right, f"rank {rank} of {size}: {result}"
    return [result for _, result in results]


def outcomes(
    function: Callable[..., Any], size: int, *arguments: Any, seconds: float = SECONDS
) -> list[tuple[bool, Any]]:
    """Per rank whether it returned, and what; else its traceback, or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        return _run(function, size, arguments, Path(folder) / "store", seconds)


def _run(
    function: Callable[..., Any], size: int, arguments: tuple[Any, ...], store: Path, seconds: float
) -> list[tuple[bool, Any]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ranks = []
    for rank in range(size):
        mine, theirs = context.Pipe(duplex=False)
        todo = (function, arguments, rank, size, str(store), seconds, theirs)
        process = context.Process(target=_rank, args=todo, daemon=True)
        process.start()
        theirs.close()
        ranks.append((process, mine))
    try:
        return [_outcome(process, pipe, seconds + 10) for process, pipe in ranks]
    finally:
        for process, _ in ranks:
            process.kill()
            process.join()


def _outcome(process: Any, pipe: Connection, seconds: float) -> tuple[bool, Any]:
    if not pipe.poll(seconds):
        return False, f"hangs after {seconds:.0f} s"
    try:
        found: tuple[bool, Any] = pickle.loads(pipe.recv_bytes())
    except EOFError:
        process.join()
        code = process.exitcode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return False, f"died: {how}"
    return found


def _rank(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    rank: int,
    size: int,
    store: str,
    seconds: float,
    pipe: Connection,
) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    # No rank is done, and closes its sockets, while another still connects.
    os.environ["TORCH_DIST_INIT_BARRIER"] = "1"
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=seconds),
    )
    try:
        _send(pipe, (True, function(*arguments)))
    except BaseException:
        _send(pipe, (False, traceback.format_exc()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _send(pipe: Connection, outcome: tuple[bool, Any]) -> None:
    """As bytes: torch would share the memory of tensors, which ends with the rank."""
    pipe.send_bytes(pickle.dumps(outcome))

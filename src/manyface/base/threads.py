"""Background threads whose torch operations stay on one core.

Every new thread would otherwise bring its own team of OpenMP threads, as many as there are cores,
and on two cores four threads would fight with training for two. torch.set_num_threads acts on the
calling thread and on threads born later; the second half is undone by a short-lived thread.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Between the limit and its undoing, a second new thread would take the limit for the usual number.
_LIMITING = threading.Lock()


def usable_cores() -> int:
    """Cores that this process may use; where the system does not say (macOS), all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Torch uses `count` CPU threads inside (0: as many as before)."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_one_core() -> None:
    """Initializer of a background thread, to be called before it first uses torch."""
    with _LIMITING:
        usual = torch.get_num_threads()  # a new thread takes over the common number here
        torch.set_num_threads(1)
        restorer = threading.Thread(target=torch.set_num_threads, args=(usual,))
        restorer.start()
        restorer.join()

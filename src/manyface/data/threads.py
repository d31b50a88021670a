"""Background threads whose torch operations stay on one core.

Every new thread would otherwise bring its own team of OpenMP threads, as many as there are cores,
and on two cores four threads would fight with training for two. torch.set_num_threads acts on the
calling thread and on threads born later; the second half is undone by a short-lived thread."""

import threading
from collections.abc import Callable

import torch


def single_threaded_torch() -> Callable[[], None]:
    """An initializer for background threads; to be made in the thread that does the main work."""
    usual = torch.get_num_threads()

    def limit_this_thread() -> None:
        torch.get_num_threads()  # a new thread takes the common number at its first use: now
        torch.set_num_threads(1)
        restorer = threading.Thread(target=torch.set_num_threads, args=(usual,))
        restorer.start()
        restorer.join()

    return limit_this_thread

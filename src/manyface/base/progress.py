"""How far a piece of work is, told by whoever does it to whoever shows it."""

from collections.abc import Callable

Progress = Callable[[int, int | None], None]  # done, in all; None: nobody knows


def no_progress(done: int, total: int | None) -> None:
    """Shows nothing."""

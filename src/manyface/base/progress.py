"""How far a piece of work is, told by whoever does it to whoever shows it."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # done, in all


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""

"""Images per second over training time alone: a stopwatch that runs only while steps run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Throughput:
    """Counts images against the seconds inside `running()`.

    Evaluation and saving happen outside of `running()` and are therefore excluded; waiting for data
    happens inside and is included. An image counts once however often a method looks at it.
    """

    def __init__(
        self,
        *,
        images: int = 0,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.images = images
        self._seconds = seconds
        self._clock = clock
        self._running_since: float | None = None
        self._mark = (images, seconds)

    @property
    def seconds(self) -> float:
        """Training seconds so far."""
        if self._running_since is None:
            return self._seconds
        return self._seconds + self._clock() - self._running_since

    @property
    def images_per_second(self) -> float:
        """Mean over the whole run; 0 before the first image."""
        return self.images / self.seconds if self.images and self.seconds > 0 else 0.0

    def add(self, images: int) -> None:
        self.images += images

    @contextmanager
    def running(self) -> Iterator[None]:
        """The stopwatch runs inside this block."""
        self._running_since = self._clock()
        try:
            yield
        finally:
            self._seconds = self.seconds
            self._running_since = None

    def take_recent(self) -> float:
        """Images per second since the last call, and begin a new stretch."""
        images, seconds = self.images, self.seconds
        old_images, old_seconds = self._mark
        self._mark = (images, seconds)
        if images == old_images or seconds <= old_seconds:
            return 0.0
        return (images - old_images) / (seconds - old_seconds)

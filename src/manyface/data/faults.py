"""Book-keeping of images that cannot be used: each named once, too many of them an error.

One broken image among millions must not end a run, and a folder of broken images must not be
trained on. The budget is `max_bad_share` of all images; a small set, of which 1 % is less than one
image, may have up to 10 but no more than a quarter of its images. The first images tried are judged
by three times the share, so that a set that is wholly unreadable stops in the first batches.
"""

import threading
from collections.abc import Callable, Iterable

from manyface.base.errors import DataError

_NUM_NAMED = 10
_SMALL_SET_ALLOWANCE = 10
_EARLY_FACTOR = 3.0


class BadImages:
    """Which records turned out bad, and why. Safe from many threads.

    Args:
        total: images in the set.
        max_share: of them that may be bad; 0 allows none.
        where: the data's name, for messages.
        warn: called once for each of the first ten, then once more to say that it falls silent;
            by `report`, in the thread that calls it.
    """

    def __init__(
        self, *, total: int, max_share: float, where: str, warn: Callable[[str], None]
    ) -> None:
        self.reasons: dict[int, str] = {}
        self._grey: set[int] = set()
        self._total, self._max_share, self._where, self._warn = total, max_share, where, warn
        self._num_tried = 0
        self._num_reported = 0
        self._lock = threading.Lock()

    def __contains__(self, index: int) -> bool:
        return index in self.reasons

    def __len__(self) -> int:
        return len(self.reasons)

    def tried(self, count: int) -> None:
        """`count` more images were looked at."""
        with self._lock:
            self._num_tried += count

    def add(self, index: int, description: str, reason: str) -> None:
        """Record `index` is bad; DataError once there are too many."""
        with self._lock:
            if index in self.reasons:
                return
            self.reasons[index] = f"{description}: {reason}"
            count = len(self.reasons)
        if count > self._num_allowed():
            raise DataError(self._too_many())

    def shown_grey(self, indices: Iterable[int]) -> None:
        """These are bad, and so are all others of their person."""
        with self._lock:
            self._grey.update(indices)

    def report(self) -> None:
        """Warn of those that are new since the last call; a refused set gets its error alone."""
        with self._lock:
            new = list(self.reasons.items())[self._num_reported :]
            first, self._num_reported = self._num_reported + 1, len(self.reasons)
        for count, (index, reason) in enumerate(new, start=first):
            if count <= _NUM_NAMED:
                self._warn(f"bad image {count}, {self._remedy(index)}: {reason}")
            elif count == _NUM_NAMED + 1:
                self._warn(f"more than {_NUM_NAMED} bad images in {self._where}; they are counted")

    def _remedy(self, index: int) -> str:
        if index in self._grey:
            return "shown as plain grey, its person has no usable one"
        return "replaced by another of the same person"

    def _num_allowed(self) -> float:
        if self._max_share <= 0:
            return 0
        small = min(_SMALL_SET_ALLOWANCE, self._total // 4)
        overall = max(small, self._max_share * self._total)
        so_far = _SMALL_SET_ALLOWANCE + _EARLY_FACTOR * self._max_share * self._num_tried
        return min(overall, so_far)

    def _too_many(self) -> str:
        first = "; ".join(list(self.reasons.values())[:3])
        return (
            f"{len(self.reasons)} of {self._total} images in {self._where} are unusable, more than "
            f"max_bad_share = {self._max_share:g} allows; first: {first}"
        )

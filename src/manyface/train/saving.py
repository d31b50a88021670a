"""When checkpoints are written, which ones stay, and what is said about them when a run stops."""

import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from manyface.base.errors import NonFiniteError
from manyface.checkpoint import read_pointer, retain, step_of, write_pointer
from manyface.parallel import ALONE, Ranks, all_or_none
from manyface.train.method import Method
from manyface.train.state import Facts, Position, save_state

OnSave = Callable[[Path], None]


class Saver:
    """Commits checkpoints of a run, keeps the newest few and the best.

    Args:
        directory: the run's `checkpoints` directory.
        keep: how many of the newest stay.
        every: save every so many steps, 0 for never.
        every_seconds: save when so long ago, 0 for never; changes nothing in the mathematics.
        last: the checkpoint that the run was resumed from.
        data: facts about the data that a resume compares.
        on_save: told of every new checkpoint.
        ranks: that save together; rank 0 has the clock.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 2,
        every: int = 0,
        every_seconds: float = 0.0,
        last: Path | None = None,
        data: Facts = MappingProxyType({}),
        on_save: OnSave = lambda path: None,
        clock: Callable[[], float] = time.monotonic,
        ranks: Ranks = ALONE,
    ) -> None:
        self.directory, self.last, self.ranks = directory, last, ranks
        self._keep, self._every, self._every_seconds = keep, every, every_seconds
        self._on_save, self._clock, self._data = on_save, clock, data
        self._saved_at = clock()

    def due(self, step: int, *, last: int) -> bool:
        """Whether the state after `step` updates is to be saved; `last` always is, once."""
        if self.last is not None and step_of(self.last) == step:
            return False
        if step == last or (step > 0 and self._every > 0 and step % self._every == 0):
            return True
        return 0 < self._every_seconds <= self._clock() - self._saved_at

    def save(self, method: Method, position: Position, *, best: bool = False) -> None:
        """Commit the state; a step that is there already only gets its pointers."""
        path = self.last
        if path is None or step_of(path) != position.step:
            path = self.last = save_state(
                self.directory, method, position, data=self._data, ranks=self.ranks
            )
            self._on_save(path)
        with all_or_none(self.ranks, "retention"):
            if self.ranks.rank == 0:
                self._point(path, position, best=best)
        self._saved_at = self._clock()

    def _point(self, path: Path, position: Position, *, best: bool) -> None:
        write_pointer(self.directory, "last", path, step=position.step)
        if best:
            write_pointer(
                self.directory, "best", path, step=position.step, score=position.best_score
            )
        best_path = read_pointer(self.directory, "best")
        retain(self.directory, keep=self._keep, protect=[best_path] if best_path else [])

    def explain(self, error: NonFiniteError, *, step: int) -> NonFiniteError:
        """The same error with the step and the last checkpoint, in the words of a user."""
        kept = f"the last checkpoint is {self.last}" if self.last else "there is no checkpoint yet"
        where = "" if "at step" in str(error) else f" at step {step + 1}"
        return NonFiniteError(
            f"training stopped{where}: {error}; {kept}; "
            "a lower learning rate, a longer warm-up or optimizer.clip_norm usually helps"
        )

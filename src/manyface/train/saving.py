"""When checkpoints are written, which ones stay, and what is said about them when a run stops."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from manyface.base.errors import ManyfaceError, NonFiniteError
from manyface.checkpoint import (
    AsyncSaver,
    Pause,
    by_first,
    own_ranks,
    read_pointer,
    retain,
    step_name,
    step_of,
    write_pointer,
)
from manyface.parallel import Ranks
from manyface.train.method import Method
from manyface.train.state import Facts, Position, state_of

OnSave = Callable[[Path], None]


class Saver:
    """Commits checkpoints of a run, keeps the newest few and the best; of every rank one.

    All ranks construct it and call `save` at the same steps. `wait` tells of what was written
    in the background, where `staging_bytes` allow for that.

    Args:
        directory: the run's `checkpoints` directory.
        keep: how many of the newest stay.
        every: save every so many steps, 0 for never.
        every_seconds: save when so long ago, 0 for never; changes nothing in the mathematics.
        last: the checkpoint that the run was resumed from.
        data: facts about the data that a resume compares.
        on_save: told of every new checkpoint.
        reserves: whether `reserve` makes room for copies.
        judged_on: the pairs that scores are of, for whoever reads the best one's.
        staging_bytes: of each rank for copies that are written in the background; 0: `save` returns
            when all is written; None: a share of the memory that is available.
        ranks: whose group nobody else talks on; default: all, with a new group.
        patience: seconds that a rank waits in it for what another one writes.

    Attributes:
        last: the newest checkpoint that is known to be committed.
        pause: what the last save took from training.
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
        reserves: bool = False,
        judged_on: str = "",
        staging_bytes: int | None = 0,
        ranks: Ranks | None = None,
        patience: float = 7200.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory, self.last = directory, last
        self.pause = Pause(0.0, in_background=False)
        self._ranks = ranks or own_ranks(patience)
        self._writer = AsyncSaver(directory, staging_bytes=staging_bytes, ranks=self._ranks)
        self._step = None if last is None else step_of(last)  # of the last save that was begun
        self._keep, self._every, self._every_seconds = keep, every, every_seconds
        self._on_save, self._clock, self._data = on_save, clock, data
        self._reserves, self._judged_on = reserves, judged_on
        self._saved_at = clock()

    def reserve(self, method: Method) -> None:
        """Make room for the copies of saves in the background: else the first is longer. After a
        step, when optimizers have their moments."""
        if self._reserves:
            self._writer.reserve(state_of(method, Position())[0])

    @property
    def is_late(self) -> bool:
        """Whether the last save is `every_seconds` ago, by the clock of this rank."""
        return 0 < self._every_seconds <= self._clock() - self._saved_at

    def due(self, step: int, *, last: int, late: bool | None = None) -> bool:
        """Whether the state after `step` updates is to be saved; `last` always is, once.

        Several ranks must agree on `late`; by default it is `is_late`.
        """
        if self._step == step:
            return False
        if step == last or (step > 0 and self._every > 0 and step % self._every == 0):
            return True
        return self.is_late if late is None else late

    def save(
        self, method: Method, position: Position, *, best: bool = False, at_once: bool = False
    ) -> None:
        """Commit the state, or begin to unless `at_once`; a step that is there already only gets
        its pointers.

        Raises what the write before this one raised, on all ranks; see `manyface.checkpoint.save`.
        """
        score = position.best_score if best else None
        point = partial(self._point, step=position.step, score=score)
        started = time.perf_counter()
        self.wait()
        if self._step == position.step:
            kept = self.directory / step_name(position.step)
            by_first(self._ranks, "pointers to a checkpoint", lambda: point(kept))
        else:
            tensors, state = state_of(method, position, data=self._data)
            pause = self._writer.save(
                step=position.step, tensors=tensors, state=state, after=point, at_once=at_once
            )
            self._step = position.step
            self.pause = replace(pause, seconds=time.perf_counter() - started)
            if not pause.in_background:  # else all ranks are told at the same step, later
                self.wait()
        self._saved_at = self._clock()

    def wait(self) -> None:
        """Until all is written, and note it; raises what that write raised."""
        try:
            path = self._writer.wait()
        except BaseException:
            self._step = None if self.last is None else step_of(self.last)
            raise
        if path is not None:
            self.last = path
            self._on_save(path)

    def finish(self) -> None:
        """As `wait`, where another error is on its way: this one's is not raised."""
        with suppress(ManyfaceError):
            self.wait()

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written in the background."""
        return self._writer.is_writing

    def _point(self, path: Path, *, step: int, score: float | None) -> None:
        """Pointers and retention; of rank 0. A score makes the checkpoint the best."""
        write_pointer(self.directory, "last", path, step=step)
        if score is not None:
            facts = {"score": score, "judged_on": self._judged_on}
            write_pointer(self.directory, "best", path, step=step, **facts)
        best_path = read_pointer(self.directory, "best")
        retain(self.directory, keep=self._keep, protect=[best_path] if best_path else [])

    def explain(self, error: NonFiniteError, *, step: int) -> NonFiniteError:
        """The same error with the step and the last checkpoint, in the words of a user."""
        self.finish()
        kept = f"the last checkpoint is {self.last}" if self.last else "there is no checkpoint yet"
        where = "" if "at step" in str(error) else f" at step {step + 1}"
        return NonFiniteError(
            f"training stopped{where}: {error}; {kept}; "
            "a lower learning rate, a longer warm-up or optimizer.clip_norm usually helps"
        )

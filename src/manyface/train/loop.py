"""The training loop. Read this first: a run is evaluate, save, step, log, until the last step.

What the words mean: `method` has the net, the head and their optimizers (method.py); a step is one
update (step.py); `position` is where the run stands (state.py); `saver` commits checkpoints
(saving.py); `recorder` writes events and shows progress (recording.py); `stop` is set by Ctrl-C and
other signals (stop.py). Step numbers count finished updates: at `position.step == 0` nothing is
trained. Every rank runs this loop, and before each step they agree on what no rank knows alone.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

from manyface.base.errors import NonFiniteError, PeerError
from manyface.data.loader import Batch
from manyface.parallel import ALONE, HERE, Ranks
from manyface.train.compare import compare_copies
from manyface.train.method import Method
from manyface.train.recording import Recorder
from manyface.train.saving import Saver
from manyface.train.schedule import Schedule
from manyface.train.state import Position, tensors_of
from manyface.train.step import FiniteGuard, train_step
from manyface.train.stop import Interrupted, StopFlag


class BatchSource(Protocol):
    """Batch number k is a pure function of k; `manyface.data.loader.Loader` is one."""

    def batches(self, start_step: int = 0, stop_step: int | None = None) -> Iterator[Batch]:
        """The batches [start_step, stop_step)."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast, how often. Counts are in steps; 0 means never (the end always counts)."""

    schedule: Schedule
    seed: int
    accumulation: int = 1
    log_every: int = 50
    evaluate_every: int = 0
    compare_every: int = 0

    def evaluates_at(self, step: int) -> bool:
        """Whether the net after `step` updates is evaluated.

        Not less than half an interval before the end, whose evaluation says the same.
        """
        last = self.schedule.num_steps
        if 0 < last - step < self.evaluate_every / 2:
            return False
        return is_due(step, every=self.evaluate_every, last=last)

    def compares_at(self, step: int) -> bool:
        """Whether the ranks' copies are compared after the update that ends at `step`."""
        return self.compare_every > 0 and step % self.compare_every == 0

    def logs_at(self, step: int) -> bool:
        """Whether the update that ends at `step` is logged; the first one shows that all works."""
        return step == 1 or is_due(step, every=self.log_every, last=self.schedule.num_steps)


def is_due(step: int, *, every: int, last: int) -> bool:
    """Whether something done every so many steps, and at the last, is due at `step`."""
    return step == last or (every > 0 and step > 0 and step % every == 0)


@dataclass(frozen=True)
class Loop:
    """A run's steps, from `position` to the end of the plan's schedule.

    `evaluate` gives the score that the best checkpoint is chosen by, None where there is none.
    """

    method: Method
    loader: BatchSource
    plan: Plan
    position: Position
    evaluate: Callable[[int], float | None]
    saver: Saver
    recorder: Recorder
    stop: StopFlag
    ranks: Ranks = ALONE

    @cached_property
    def _guard(self) -> FiniteGuard:
        return FiniteGuard(self.method.device)

    @property
    def _num_steps(self) -> int:
        return self.plan.schedule.num_steps

    def run(self) -> None:
        """Train to the end; raises `Interrupted` after a stop, with all that was done saved."""
        start, stop = self.position.step, self._num_steps
        batches = batches_of_steps(self.loader, start, stop, self.plan.accumulation)
        with closing(batches) as feed, self._explaining():
            while True:
                improved = self._evaluate_if_due()
                received = self._save_if_due(improved)
                if received:
                    raise Interrupted(received, checkpoint=self.saver.last)
                if self.position.step == self._num_steps:
                    return
                with self.recorder.throughput.running():
                    self._step(next(feed))
                if self.position.step == start + 1:
                    self.saver.reserve(self.method)
                self.recorder.show(self.position.step)

    def _evaluate_if_due(self) -> bool:
        """Whether the net is the best so far."""
        step = self.position.step
        if not self.plan.evaluates_at(step) or self.position.evaluated_step == step:
            return False
        self._guard.check()
        return self.position.take_score(self.evaluate(step))

    def _save_if_due(self, improved: bool) -> signal.Signals | None:
        """The signal that ends the run here, if any rank has received one."""
        position, saver = self.position, self.saver
        received, is_late, is_writing = agreed(self.stop.received, saver, self.ranks)
        if not is_writing:
            saver.wait()  # what was written is known, and its error raised, on all ranks
        ends = bool(received) or position.step == self._num_steps
        if improved or received or saver.due(position.step, last=self._num_steps, late=is_late):
            self._guard.check()
            self.recorder.measure(position)
            saver.save(self.method, position, best=improved, at_once=ends)
        if ends:
            saver.wait()
        return received

    def _step(self, batches: list[Batch]) -> None:
        factor = self.plan.schedule.factor(self.position.step)
        result = train_step(
            self.method,
            batches,
            step=self.position.step,
            factor=factor,
            seed=self.plan.seed,
            guard=self._guard,
            ranks=self.ranks,
        )
        self.position.step = HERE.step = step = self.position.step + 1
        if self.plan.compares_at(step) and not self.ranks.is_alone:
            compare_copies(tensors_of(self.method), self.ranks)
        self.recorder.throughput.add(sum(batch.num_images for batch in batches))
        if self.plan.logs_at(step):
            self._guard.check()
            self.recorder.log_step(step, result, self.method.learning_rate(factor))

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """What is being written is good: an error, but for ranks that are gone, waits for it."""
        try:
            yield
        except NonFiniteError as error:
            raise self.saver.explain(error, step=self.position.step) from error
        except PeerError:
            raise
        except Exception:
            self.saver.finish()
            raise


def agreed(
    received: signal.Signals | None, saver: Saver, ranks: Ranks
) -> tuple[signal.Signals | None, bool, bool]:
    """The signal that any rank has received, whether rank 0 finds it time for a save, and whether
    any is writing one.

    Once before a step, and for all of it: a signal may come between two looks.
    """
    is_late = saver.is_late and ranks.rank == 0
    number, late, writing = ranks.agree(
        received or 0, int(is_late), int(saver.is_writing), name="stop and save"
    )
    return signal.Signals(number) if number else None, bool(late), bool(writing)


def batches_of_steps(
    loader: BatchSource, start_step: int, stop_step: int, accumulation: int
) -> Generator[list[Batch], None, None]:
    """The batches of each step in [start_step, stop_step): `accumulation` of them a step."""
    batches = loader.batches(start_step * accumulation, stop_step * accumulation)
    try:
        while group := list(islice(batches, accumulation)):
            yield group
    finally:
        if isinstance(batches, Generator):  # ends the loader's threads now, not at some later time
            batches.close()

"""The training loop. Read this first: a run is evaluate, save, step, log, until the last step.

What the words mean: `method` has the net, the head and their optimizers (method.py); a step is one
update (step.py); `position` is where the run stands (state.py); `saver` commits checkpoints
(saving.py); `recorder` writes events and shows progress (recording.py); `stop` is set by Ctrl-C and
other signals (stop.py). Step numbers count finished updates: at `position.step == 0` nothing is
trained. Every rank runs this loop, and before each step they agree on what no rank knows alone.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from manyface.base.errors import NonFiniteError
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


def run_loop(
    method: Method,
    loader: BatchSource,
    *,
    plan: Plan,
    position: Position,
    evaluate: Callable[[int], float | None],
    saver: Saver,
    recorder: Recorder,
    stop: StopFlag,
    ranks: Ranks = ALONE,
) -> None:
    """Train from `position` to the end of the plan's schedule.

    `evaluate` gives the score that the best checkpoint is chosen by, None where there is none.
    """
    num_steps = plan.schedule.num_steps
    guard = FiniteGuard(method.device)
    with closing(batches_of_steps(loader, position.step, num_steps, plan.accumulation)) as feed:
        while True:
            try:
                improved = False
                if plan.evaluates_at(position.step) and position.evaluated_step != position.step:
                    guard.check()
                    improved = position.take_score(evaluate(position.step))

                received, is_late, is_writing = agreed(stop.received, saver, ranks)
                if not is_writing:
                    saver.wait()  # what was written is known, and its error raised, on all ranks
                if improved or received or saver.due(position.step, last=num_steps, late=is_late):
                    guard.check()
                    recorder.measure(position)
                    ends = bool(received) or position.step == num_steps
                    saver.save(method, position, best=improved, at_once=ends)

                if received or position.step == num_steps:
                    saver.wait()
                if received:
                    raise Interrupted(received, checkpoint=saver.last)
                if position.step == num_steps:
                    return

                with recorder.throughput.running():
                    batches = next(feed)
                    factor = plan.schedule.factor(position.step)
                    result = train_step(
                        method,
                        batches,
                        step=position.step,
                        factor=factor,
                        seed=plan.seed,
                        guard=guard,
                        ranks=ranks,
                    )
                    position.step = HERE.step = position.step + 1
                    if plan.compares_at(position.step) and not ranks.is_alone:
                        compare_copies(tensors_of(method), ranks)
                    recorder.throughput.add(sum(batch.num_images for batch in batches))
                    if plan.logs_at(position.step):
                        guard.check()
                        recorder.log_step(position.step, result, method.learning_rate(factor))
                recorder.show(position.step)
            except NonFiniteError as error:
                raise saver.explain(error, step=position.step) from error


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

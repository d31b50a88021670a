"""What a run leaves for people and for the report: events, TensorBoard, display, figures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyface.checkpoint import step_of
from manyface.observe import EventLog, MemoryMeter, Throughput
from manyface.observe.progress import Progress, Snapshot
from manyface.train.state import Position
from manyface.train.step import StepResult

if TYPE_CHECKING:
    from manyface.observe.tensorboard import TensorBoardLog


class Notices:
    """Takes warnings from the first moment on and hands them over once there is a recorder."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._recorder: Recorder | None = None

    def __call__(self, text: str) -> None:
        if self._recorder is None:
            self._waiting.append(text)
        else:
            self._recorder.warn(text)

    def connect(self, recorder: "Recorder") -> None:
        """Send what has waited, and everything later, to `recorder`."""
        self._recorder = recorder
        for text in self._waiting:
            recorder.warn(text)
        self._waiting.clear()


class Recorder:
    """One place that every number of a run goes through."""

    def __init__(
        self,
        events: EventLog,
        progress: Progress,
        *,
        num_steps: int,
        throughput: Throughput,
        meter: MemoryMeter,
        tensorboard: "TensorBoardLog | None" = None,
    ) -> None:
        self.throughput = throughput
        self._events, self._progress, self._tensorboard = events, progress, tensorboard
        self._meter, self._num_steps = meter, num_steps
        self._loss: float | None = None
        self._step = 0
        self._steps_shown, self._seconds_before = 0, events.seconds

    def log_step(self, step: int, result: StepResult, learning_rate: float) -> None:
        """Write a step's numbers; the only place in a step that waits for the device."""
        self._loss = float(result.loss)
        self.write(
            "step",
            step=step,
            loss=self._loss,
            learning_rate=learning_rate,
            grad_norm=float(result.grad_norm),
            images_per_second=self.throughput.take_recent(),
        )

    def show(self, step: int) -> None:
        """Move the display on."""
        self._step = step
        self._steps_shown += 1
        # By the wall clock: evaluations and saves still to come take their time too.
        seconds_per_step = (self._events.seconds - self._seconds_before) / self._steps_shown
        self._progress.update(
            Snapshot(
                step=step,
                loss=self._loss,
                images_per_second=self.throughput.images_per_second,
                # After the last step an evaluation is still to come: no 0 s left.
                seconds_left=seconds_per_step * (self._num_steps - step) or None,
            )
        )

    def write(self, kind: str, **fields: Any) -> None:
        """Append an event, to TensorBoard too."""
        event = self._events.write(kind, **fields)
        if self._tensorboard is not None:
            self._tensorboard.write(event)

    def prepared(self, **figures: Any) -> None:
        """All that comes before the first step is done; from here on the time left is reckoned."""
        self.write("prepared", step=self._step, **figures)
        self._seconds_before = self._events.seconds

    def begin(self, step: int, **facts: Any) -> None:
        """The run starts, or goes on, after `step` updates."""
        self._step = step
        self.write("start", step=step, **facts)

    def warn(self, text: str) -> None:
        """A warning for the log and for the person who watches; names of files may be no UTF-8."""
        text = text.encode(errors="backslashreplace").decode()
        self.write("warning", step=self._step, text=text)
        self._progress.message(f"warning: {text}")

    def say(self, text: str) -> None:
        """A message for the person who watches."""
        self._progress.message(text)

    def alert(self, text: str) -> None:
        """The same from within a signal handler."""
        self._progress.alert(text)

    @contextmanager
    def doing(self, text: str) -> Iterator[Callable[[str], None]]:
        """The display says what goes on inside the block, which is given a way to say how far."""
        self._progress.activity(text)
        try:
            yield lambda more: self._progress.activity(f"{text} {more}", more=True)
        finally:
            self._progress.activity(None)

    def saved(self, path: Path) -> None:
        """Note a new checkpoint, and force the events so far to the disk."""
        self.write("checkpoint", step=step_of(path) or 0, path=f"checkpoints/{path.name}")
        self._events.sync()

    def measure(self, position: Position) -> None:
        """Put the figures so far into the position, from where a resumed run goes on counting."""
        position.images = self.throughput.images
        position.train_seconds = self.throughput.seconds
        position.elapsed_seconds = self._events.seconds
        position.peak_memory_bytes = max(position.peak_memory_bytes, self._meter.peak_bytes)

"""The loop with fakes: what happens when, and in which order."""

import io
import signal

import pytest
import torch

from manyface.base.errors import DataError, NonFiniteError, PeerError
from manyface.data.loader import Batch
from manyface.observe import EventLog, MemoryMeter, Throughput, read_events
from manyface.observe.progress import LineProgress
from manyface.train.loop import Loop, Plan, batches_of_steps
from manyface.train.recording import Recorder
from manyface.train.saving import Saver
from manyface.train.schedule import Schedule
from manyface.train.state import Position
from manyface.train.stop import Interrupted, StopFlag


class FakeMethod:
    """Its loss is the number of the batch; weight counts updates."""

    device = torch.device("cpu")

    def __init__(self, diary):
        self.diary = diary
        self.weight = torch.zeros(1, requires_grad=True)
        self.updates = 0

    def begin_step(self):
        self.weight.grad = None

    def loss(self, batch):
        return (self.weight * 0 + float(batch.first_position)).sum()

    def clip_gradients(self):
        return torch.tensor(1.0)

    def update(self, factor):
        self.updates += 1
        self.diary.append(("update", self.updates))

    def learning_rate(self, factor):
        return 0.1 * factor

    @property
    def embedder(self):
        raise NotImplementedError

    def state_dict(self):
        return {"net": {"updates": torch.tensor(self.updates)}}

    def load_state_dict(self, state):
        self.updates = int(state["net"]["updates"])


class FakeLoader:
    def __init__(self, bad_step=None):
        self.closed = False
        self.bad_step = bad_step

    def batches(self, start_step=0, stop_step=None):
        try:
            for step in range(start_step, stop_step):
                value = float("nan") if step == self.bad_step else step
                yield Batch(torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64), value, 4)
        finally:
            self.closed = True


def start(tmp_path, *, num_steps=6, position=None, loader=None, evaluate=None, stream=None, **plan):
    diary = []
    method, loader = FakeMethod(diary), loader or FakeLoader()
    stop = plan.pop("stop", None) or StopFlag()
    throughput = Throughput()

    def default_evaluate(step):
        diary.append(("evaluate", step))
        return 0.5

    saver = plan.pop("saver", None) or Saver(
        tmp_path / "checkpoints",
        every=plan.pop("save_every", 0),
        on_save=lambda path: diary.append(("save", int(path.name[5:]))),
    )
    with EventLog(tmp_path / "events.jsonl") as events, MemoryMeter() as meter:
        recorder = Recorder(
            events,
            LineProgress("run", num_steps=num_steps, stream=stream or io.StringIO()),
            num_steps=num_steps,
            throughput=throughput,
            meter=meter,
        )
        Loop(
            method,
            loader,
            plan=Plan(schedule=Schedule(num_steps=num_steps), seed=0, **plan),
            position=position or Position(),
            evaluate=evaluate(diary, stop) if evaluate else default_evaluate,
            saver=saver,
            recorder=recorder,
            stop=stop,
        ).run()
    return diary, loader, throughput


def test_evaluate_then_save_then_step_and_everything_at_the_end(tmp_path):
    diary, loader, throughput = start(tmp_path, evaluate_every=2, save_every=3)
    assert diary == [
        *[("update", 1), ("update", 2)],
        *[("evaluate", 2), ("save", 2)],  # the first evaluation is the best so far: saved
        *[("update", 3), ("save", 3), ("update", 4), ("evaluate", 4)],
        *[("update", 5), ("update", 6), ("evaluate", 6), ("save", 6)],
    ]
    assert loader.closed
    assert throughput.images == 24


@pytest.mark.parametrize(
    "every, last, steps",
    [
        (8, 18, [8, 18]),  # 16 is so near the end that the end speaks for it
        (8, 20, [8, 16, 20]),
        (8, 16, [8, 16]),
        (10, 6, [6]),
        (1, 3, [1, 2, 3]),
        (0, 5, [5]),
    ],
)
def test_an_evaluation_close_to_the_end_is_left_to_it(every, last, steps):
    plan = Plan(schedule=Schedule(num_steps=last), seed=0, evaluate_every=every)
    assert [step for step in range(last + 1) if plan.evaluates_at(step)] == steps


def test_only_the_end_without_intervals(tmp_path):
    diary, _, _ = start(tmp_path, num_steps=2)
    assert diary == [("update", 1), ("update", 2), ("evaluate", 2), ("save", 2)]


def test_the_display_promises_no_time_left_while_the_last_evaluation_is_still_to_come(tmp_path):
    stream = io.StringIO()
    start(tmp_path, num_steps=2, stream=stream)
    assert "step 2/2" in stream.getvalue()
    assert "left" not in stream.getvalue()


def test_logged_steps(tmp_path):
    start(tmp_path, log_every=4)
    steps = [e for e in read_events(tmp_path / "events.jsonl") if e["kind"] == "step"]
    assert [e["step"] for e in steps] == [1, 4, 6]
    assert [e["loss"] for e in steps] == [0.0, 3.0, 5.0]  # the loss of update k is batch k - 1
    assert steps[0]["learning_rate"] == 0.1


def test_a_resumed_run_starts_at_its_batch_and_does_not_evaluate_twice(tmp_path):
    position = Position(step=4, evaluated_step=4, best_score=0.9)
    diary, _, _ = start(tmp_path, position=position, evaluate_every=2, log_every=1)
    assert diary == [("update", 1), ("update", 2), ("evaluate", 6), ("save", 6)]
    losses = [e["loss"] for e in read_events(tmp_path / "events.jsonl") if e["kind"] == "step"]
    assert losses == [4.0, 5.0]


def test_an_evaluation_that_was_cut_short_is_made_up_for(tmp_path):
    diary, _, _ = start(tmp_path, position=Position(step=4, evaluated_step=2), evaluate_every=2)
    assert diary[:2] == [("evaluate", 4), ("save", 4)]


class LateFlag(StopFlag):
    """A signal that comes just before somebody's look number `looks`."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def received(self):
        self.looks -= 1
        return signal.SIGINT if self.looks < 0 else None


@pytest.mark.parametrize("step", range(7))
def test_a_stop_is_seen_once_a_step_and_that_step_is_saved(tmp_path, step):
    with pytest.raises(Interrupted, match=f"step-{step:08d}"):
        start(tmp_path, stop=LateFlag(step))


def test_a_stop_saves_says_so_and_closes_the_loader(tmp_path):
    loader = FakeLoader()

    def evaluate(diary, stop):
        def stopped(step):
            stop.request(signal.SIGINT)
            return  # as Validation does

        return stopped

    with pytest.raises(Interrupted, match="step-00000002") as caught:
        start(tmp_path, loader=loader, evaluate=evaluate, evaluate_every=2)
    assert caught.value.exit_code == 130
    assert loader.closed


@pytest.mark.parametrize("save_every, kept", [(2, "step-00000002"), (0, "no checkpoint yet")])
def test_a_nan_stops_naming_quantity_step_and_checkpoint(tmp_path, save_every, kept):
    with pytest.raises(NonFiniteError, match=f"the loss is not finite at step 4; .*{kept}"):
        start(tmp_path, loader=FakeLoader(bad_step=3), save_every=save_every)


_GONE = PeerError("sum", rank=0, size=2, error=RuntimeError("gone"))


class AwaitedSaver(Saver):
    """Knows whether somebody has waited for it."""

    was_awaited = False

    def wait(self):
        self.was_awaited = True
        super().wait()


@pytest.mark.parametrize("error, waits", [(DataError("too many"), True), (_GONE, False)])
def test_an_error_waits_for_the_checkpoint_that_is_written(tmp_path, error, waits):
    class Failing(FakeLoader):
        def batches(self, start_step=0, stop_step=None):
            saver.was_awaited = False
            raise error
            yield

    saver = AwaitedSaver(tmp_path / "checkpoints")
    with pytest.raises(type(error)):
        start(tmp_path, loader=Failing(), saver=saver)
    assert saver.was_awaited == waits


@pytest.mark.parametrize("position", [0, 4])
def test_room_for_copies_is_made_after_the_first_step(tmp_path, position):
    asked = []

    class Asked(Saver):
        def reserve(self, method):
            asked.append(method.updates)

    start(tmp_path, position=Position(step=position), saver=Asked(tmp_path / "checkpoints"))
    assert asked == [1]


def test_a_warning_may_hold_a_name_that_is_no_utf_8(tmp_path):
    stream = io.StringIO()
    with EventLog(tmp_path / "events.jsonl") as events, MemoryMeter() as meter:
        display = LineProgress("run", num_steps=1, stream=stream)
        recorder = Recorder(events, display, num_steps=1, throughput=Throughput(), meter=meter)
        recorder.warn("caf\udce9.jpg is damaged")
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["text"] == "caf\\udce9.jpg is damaged"
    assert event["text"] in stream.getvalue()


def test_a_finished_run_trains_no_more(tmp_path):
    diary, _, _ = start(tmp_path, position=Position(step=6, evaluated_step=6))
    assert [what for what, _ in diary] == ["save"]


def test_batches_are_grouped_by_step():
    groups = batches_of_steps(FakeLoader(), 1, 3, 2)
    assert [[b.first_position for b in group] for group in groups] == [[2, 3], [4, 5]]

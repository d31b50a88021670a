"""What a method is shown before its first step: in order, shown on the display, stopped at once."""

import io
import signal
import threading

import pytest
import torch

from manyface.data.loader import Batch, made_ahead
from manyface.observe import EventLog, MemoryMeter, Throughput, read_events
from manyface.observe.progress import LineProgress
from manyface.train.prepare import Preparation, how_far, prepare
from manyface.train.recording import Recorder
from manyface.train.stop import Interrupted, StopFlag


class FakeMethod:
    """Draws a number for every batch it is shown."""

    device = torch.device("cpu")

    def __init__(self, after=lambda: None):
        self.seen, self.drawn, self._after = [], [], after

    def prepare(self, batch):
        self.seen.append(batch.first_position)
        self.drawn.append(torch.rand(1).item())
        self._after()


def start(tmp_path, method, *, stop=None, prefetch=0, seed=0):
    stream, now = io.StringIO(), [0.0]

    def make(number):
        now[0] += 4.0
        return Batch(torch.zeros(8, 3, 2, 2), torch.zeros(8, dtype=torch.int64), number, 8)

    def batches():
        return made_ahead(make, iter(range(5)), prefetch=prefetch, workers=1)

    display = LineProgress("run", num_steps=9, stream=stream, clock=lambda: now[0])
    with EventLog(tmp_path / "events.jsonl") as events, MemoryMeter() as meter:
        prepare(
            method,
            Preparation("filling the pool", 40, batches),
            seed=seed,
            recorder=Recorder(events, display, num_steps=9, throughput=Throughput(), meter=meter),
            stop=stop or StopFlag(),
            clock=lambda: now[0],
        )
    return stream.getvalue().splitlines()


def test_all_batches_in_order_with_rate_and_time_left(tmp_path):
    method = FakeMethod()
    lines = start(tmp_path, method)
    assert method.seen == [0, 1, 2, 3, 4]
    assert lines == [
        "run: filling the pool",
        "run: filling the pool 24/40  2 images/s  8s left",  # not every batch: 10 seconds have gone
    ]
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["kind"] == "prepared"
    assert (event["step"], event["images"], event["preparation_seconds"]) == (0, 40, 20.0)


def test_draws_follow_from_the_seed_and_leave_no_trace(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1).item()
    torch.manual_seed(5)
    one, other, third = FakeMethod(), FakeMethod(), FakeMethod()
    start(tmp_path, one)
    start(tmp_path, other)
    start(tmp_path, third, seed=1)
    assert torch.rand(1).item() == expected
    assert one.drawn == other.drawn != third.drawn
    assert len(set(one.drawn)) == 5


def test_a_stop_ends_it_after_the_batch_and_no_thread_is_left(tmp_path):
    stop, before = StopFlag(), threading.active_count()
    method = FakeMethod(after=lambda: stop.request(signal.SIGINT))
    with pytest.raises(Interrupted, match="nothing to save") as caught:
        start(tmp_path, method, stop=stop, prefetch=2)
    assert caught.value.exit_code == 130
    assert method.seen == [0]
    assert threading.active_count() <= before  # those of an earlier test may have ended
    assert read_events(tmp_path / "events.jsonl") == []


def test_how_far():
    assert how_far(50, 200, seconds=10.0) == "50/200  5 images/s  30s left"
    assert how_far(200, 200, seconds=10.0) == "200/200  20 images/s  0s left"
    assert how_far(8, 200, seconds=0.0) == "8/200  0 images/s  ? left"

import pytest

from manyface.observe.throughput import Throughput


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_running_time_counts():
    clock = Clock()
    throughput = Throughput(clock=clock)
    for _ in range(2):
        with throughput.running():
            clock.now += 2.0
            throughput.add(100)
        clock.now += 50.0  # evaluation, saving
    assert throughput.seconds == 4.0
    assert throughput.images_per_second == 50.0


def test_recent_rate_covers_the_stretch_since_the_last_call():
    clock = Clock()
    throughput = Throughput(clock=clock)
    with throughput.running():
        clock.now += 1.0
        throughput.add(10)
        assert throughput.take_recent() == 10.0
        clock.now += 1.0
        throughput.add(30)
        assert throughput.take_recent() == 30.0
    assert throughput.take_recent() == 0.0


def test_a_resumed_run_goes_on_counting():
    clock = Clock()
    throughput = Throughput(images=300, seconds=3.0, clock=clock)
    with throughput.running():
        clock.now += 1.0
        throughput.add(100)
    assert throughput.images_per_second == pytest.approx(100.0)
    assert throughput.take_recent() == pytest.approx(100.0)

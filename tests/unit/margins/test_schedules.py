"""Schedules: values at both sides of every border."""

import pytest

from manyface.base.errors import ConfigError
from manyface.margins.schedules import linear_value, sphereface_annealing, stepwise_value


def test_linear_runs_from_start_to_end_and_stays() -> None:
    values = [linear_value(step, start=0.2, end=0.6, num_steps=4, begin=2) for step in range(9)]
    assert values == pytest.approx([0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6])
    assert linear_value(10**9, start=0.0, end=0.5, num_steps=3) == 0.5


def test_stepwise_changes_at_its_borders() -> None:
    values = [stepwise_value(step, values=[8, 16, 64], borders=[2, 5]) for step in range(7)]
    assert values == [8, 8, 16, 16, 16, 64, 64]
    assert stepwise_value(123, values=[64.0], borders=[]) == 64.0


def test_annealing_starts_at_its_base_and_falls_to_the_least() -> None:
    assert sphereface_annealing(0) == 1000.0
    assert sphereface_annealing(100) == pytest.approx(1000.0 / 13.0)
    assert sphereface_annealing(10**6) == 5.0
    assert sphereface_annealing(9, gamma=1.0, power=2.0, least=0.0) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_value(0, start=0.0, end=1.0, num_steps=0),
        lambda: stepwise_value(0, values=[1.0], borders=[5]),
        lambda: stepwise_value(0, values=[1.0, 2.0, 3.0], borders=[5, 5]),
        lambda: sphereface_annealing(0, base=0.0),
        lambda: sphereface_annealing(0, least=-1.0),
    ],
)
def test_impossible_schedules_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]

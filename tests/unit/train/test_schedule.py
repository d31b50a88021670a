import math

import pytest

from manyface.base.errors import ConfigError
from manyface.train.schedule import Schedule


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(schedule.num_steps)]


def test_warmup_is_linear_wastes_no_step_and_meets_the_decay():
    found = factors(Schedule(num_steps=10, warmup_steps=4))
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0
    assert found[4:] == [pytest.approx(1 - k / 6) for k in range(6)]


def test_the_last_step_still_moves():
    assert factors(Schedule(num_steps=100))[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial(power):
    found = factors(Schedule(num_steps=8, power=power))
    assert found == [pytest.approx((1 - k / 8) ** power) for k in range(8)]


def test_cosine():
    found = factors(Schedule(num_steps=8, decay="cosine"))
    assert found == [pytest.approx((1 + math.cos(math.pi * k / 8)) / 2) for k in range(8)]


def test_constant_and_final_fraction():
    assert set(factors(Schedule(num_steps=5, decay="constant"))) == {1.0}
    schedule = Schedule(num_steps=1000, final_fraction=0.1)
    assert schedule.factor(999) == pytest.approx(0.1 + 0.9 / 1000)
    assert schedule.factor(1000) == pytest.approx(0.1)
    assert schedule.factor(5000) == pytest.approx(0.1)


def test_warmup_may_fill_the_run():
    assert factors(Schedule(num_steps=2, warmup_steps=2)) == [0.5, 1.0]


@pytest.mark.parametrize("arguments", [{"num_steps": 0}, {"num_steps": 5, "warmup_steps": 6}])
def test_impossible_lengths_are_refused(arguments):
    with pytest.raises(ConfigError, match="got"):
        Schedule(**arguments)

import math

import pytest

from manyface.base.errors import ConfigError
from manyface.config import parse_config
from manyface.train.build import build_schedule
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


def test_milestones():
    schedule = Schedule(10, warmup_steps=2, decay="multistep", milestones=(4, 7), gamma=0.5)
    assert factors(schedule) == [0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("settings", "length", "reached"),
    [("epochs = 19.0", 190, (80, 140, 170)), ("steps = 19", 19, (8, 14, 17))],
)
def test_milestones_are_in_the_unit_of_the_length(settings, length, reached):
    text = f"[schedule]\n{settings}\ndecay = 'multistep'\nmilestones = [8, 14, 17]"
    schedule = build_schedule(parse_config(text), steps_per_epoch=10.0)
    assert (schedule.num_steps, schedule.milestones, schedule.gamma) == (length, reached, 0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("decay = 'multistep'", "belong together"),
        ("milestones = [3]", "belong together"),
        ("decay = 'multistep'\nmilestones = [5, 3]", "must rise"),
        ("decay = 'multistep'\nmilestones = [3, 3]", "must rise"),
        ("decay = 'multistep'\nmilestones = [20]", "not before the end"),
        ("decay = 'multistep'\nmilestones = [3]\nfinal_fraction = 0.1", "no meaning"),
    ],
)
def test_impossible_milestones_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        parse_config(f"[schedule]\nepochs = 20\n{settings}")


def test_warmup_may_fill_the_run():
    assert factors(Schedule(num_steps=2, warmup_steps=2)) == [0.5, 1.0]


@pytest.mark.parametrize("arguments", [{"num_steps": 0}, {"num_steps": 5, "warmup_steps": 6}])
def test_impossible_lengths_are_refused(arguments):
    with pytest.raises(ConfigError, match="got"):
        Schedule(**arguments)

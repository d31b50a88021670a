"""Values that change with the step (a margin, a scale), as pure functions: nothing to save.

A head with class centers takes them by name, and reads them at its own number of steps, which is a
part of its state:

    FullFC(..., schedules={"m": partial(linear_value, start=0.0, end=0.5, num_steps=1000)})

A margin is a frozen dataclass, so the one of a step is a copy with other fields (`at_step`), and
running averages go along. A value that never changes is a `stepwise_value` without borders.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise

from manyface.base.errors import ConfigError
from manyface.margins.base import Margin
from manyface.margins.checks import check_not_negative, check_positive

# Step (from 0) -> value.
StepValue = Callable[[int], float]
SCALE = "scale"


def at_step(
    margin: Margin, scale: float, schedules: Mapping[str, StepValue], step: int
) -> tuple[Margin, float]:
    """Margin and scale of `step`: those given, but for what `schedules` names.

    Raises:
        ConfigError: a value that the margin refuses, or a scale that is not above 0.
    """
    if not schedules:
        return margin, scale
    values = {name: value(step) for name, value in schedules.items()}
    scale = values.pop(SCALE, scale)
    check_positive(f"scale at step {step}", scale)
    return (replace(margin, **values) if values else margin), scale  # type: ignore[type-var]


def check_schedules(margin: Margin, schedules: Mapping[str, StepValue]) -> None:
    """Refuse a schedule of something that is neither the scale nor a number of the margin."""
    known: list[str] = (
        [each.name for each in fields(margin) if each.init] if is_dataclass(margin) else []
    )
    numbers = [name for name in known if isinstance(getattr(margin, name), float | int)]
    for name in schedules:
        if name != SCALE and name not in numbers:
            raise ConfigError(
                f"cannot schedule {name!r}: expected one of {', '.join([SCALE, *numbers])}, which "
                f"a head with {type(margin).__name__} has"
            )


def linear_value(step: int, *, start: float, end: float, num_steps: int, begin: int = 0) -> float:
    """`start` up to step `begin`, `end` from step `begin + num_steps` on, a line between."""
    if num_steps < 1:
        raise ConfigError(f"a linear schedule needs num_steps of at least 1, got {num_steps}")
    progress = min(max((step - begin) / num_steps, 0.0), 1.0)
    return (1.0 - progress) * start + progress * end


def stepwise_value(step: int, *, values: Sequence[float], borders: Sequence[int]) -> float:
    """`values[i]` from step `borders[i - 1]` up to but without step `borders[i]`.

    Args:
        step: from 0.
        values: one more than `borders`.
        borders: steps, rising.
    """
    if len(values) != len(borders) + 1:
        raise ConfigError(
            f"a stepwise schedule needs one value more than borders, got {len(values)} values and "
            f"{len(borders)} borders"
        )
    if any(later <= sooner for sooner, later in pairwise(borders)):
        raise ConfigError(f"borders of a stepwise schedule must rise, got {list(borders)}")
    return values[sum(step >= border for border in borders)]


def sphereface_annealing(
    step: int, *, base: float = 1000.0, gamma: float = 0.12, power: float = 1.0, least: float = 5.0
) -> float:
    """SphereFace's lambda: max(least, base (1 + gamma step)^-power).

    Source: the authors' released training (github.com/wy1iu/sphereface), whose numbers these are.
    """
    check_positive("annealing base", base)
    check_not_negative("annealing gamma", gamma)
    check_not_negative("annealing power", power)
    check_not_negative("annealing least", least)
    return float(max(least, base * (1.0 + gamma * step) ** -power))

"""Learning-rate schedules as pure functions of the step; nothing to save, nothing to resume.

A schedule is a factor in (0, 1]; backbone and head each multiply their own base value by it, so
both follow one shape. Linear warm-up, then the field's polynomial (power 1 in insightface), a half
cosine, falls at milestones (older recipes, F2C), or constant. Warm-up counts from 1: the first of w
steps moves by 1/w, none is wasted at 0.
"""

import math
from dataclasses import dataclass
from typing import Literal

from manyface.base.errors import ConfigError

Decay = Literal["polynomial", "cosine", "multistep", "constant"]


@dataclass(frozen=True)
class Schedule:
    """`factor(step)` for step in [0, num_steps).

    `final_fraction` is the value that the decay runs towards; it is reached at step `num_steps`,
    which is one past the last, so a polynomial that runs to 0 never trains at 0. With "multistep"
    the factor is `gamma` to the number of `milestones`, in steps, that are reached.
    """

    num_steps: int
    warmup_steps: int = 0
    decay: Decay = "polynomial"
    power: float = 1.0
    final_fraction: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"a run needs at least 1 step, got {self.num_steps}")
        if not 0 <= self.warmup_steps <= self.num_steps:
            raise ConfigError(
                f"warm-up must fit into the run of {self.num_steps} steps, got {self.warmup_steps}"
            )

    def factor(self, step: int) -> float:
        """The factor that step number `step` (from 0) trains with."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.decay == "multistep":
            return float(self.gamma ** sum(step >= reached for reached in self.milestones))
        decay_steps = max(1, self.num_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / decay_steps)
        shape = _shape(self.decay, progress, self.power)
        return self.final_fraction + (1.0 - self.final_fraction) * shape


def _shape(decay: Decay, progress: float, power: float) -> float:
    """From 1 at progress 0 to 0 at progress 1 (constant: 1)."""
    if decay == "polynomial":
        return float((1.0 - progress) ** power)
    if decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0

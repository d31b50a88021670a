"""A step of F2C planned on the host, from labels alone: who is written where, who is inside.

    x, y         the two half batches of a step
    pass 1       gallery y is written, probe x is scored, y is taken back
    pass 2       gallery x is written and stays, probe y is scored

so every image is probe once and gallery once, against a pool that differs by the gallery of the
pass alone (the official code's roll-back). The single pass is the first one, and y stays.
Planning needs nothing of the device, so a loader's thread can run steps ahead of training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.heads.placement import FEATURES, Int64Array, Placement, SlotState
from manyface.heads.slots import Slots


@dataclass(frozen=True)
class PassPlan:
    """One pass; all tensors int64 on the CPU.

    Attributes:
        kept: [W], samples of the gallery batch whose features are written.
        slots, rows: [W], where to; no pair twice.
        num_filled: slots in use once they are written.
        again: [A], sorted: slots of identities that the gallery batch has met again.
        inside, targets: [I], samples of the probe batch in the pool, and their slots.
        outside: [O], the other samples.
    """

    kept: Tensor
    slots: Tensor
    rows: Tensor
    num_filled: int
    again: Tensor
    inside: Tensor
    targets: Tensor
    outside: Tensor

    @property
    def num_probes(self) -> int:
        """Samples of the probe batch."""
        return len(self.inside) + len(self.outside)


@dataclass(frozen=True)
class StepPlan:
    """A step.

    Attributes:
        passes: the last one's writes stay.
        change: how it moves the bookkeeping.
        number: of changes of the pool (steps, prefills) that are made before it.
    """

    passes: tuple[PassPlan, ...]
    change: Placement
    number: int = 0


def check_passes(num_passes: int) -> None:
    """Raise ConfigError unless a step can have so many."""
    if num_passes not in (1, 2):
        raise ConfigError(f"a step of F2C has 1 or 2 passes, got {num_passes}")


class PoolPlanner:
    """Plans the steps that follow a state, in order; `slots` runs ahead with it.

    Args:
        slots: in that state.
        features: of the pool.
        num_passes: of a step, 1 or 2.
        num_changes: of the pool that have led to that state.
    """

    def __init__(
        self, slots: Slots, *, features: int = 1, num_passes: int = 2, num_changes: int = 0
    ) -> None:
        check_passes(num_passes)
        self.slots, self.features, self.num_passes = slots, features, num_passes
        self.num_changes = num_changes

    def plan(self, x_labels: Int64Array, y_labels: Int64Array) -> StepPlan:
        """The next step, for labels [n] of the half batches x and y.

        An error (LabelError, ConfigError, as of `Slots.insert`) leaves the planner where it was.
        """
        self.slots.check(x_labels)
        self.slots.check(y_labels)
        passes, change = self._passes(x_labels, y_labels)
        return StepPlan(passes, change, self._next_number())

    def prefill(self, labels: Int64Array) -> tuple[PassPlan, Placement]:
        """A gallery batch of `labels` [n] alone, which stays; nobody is scored."""
        found = self._pass(gallery=labels, probe=labels[:0])
        self._next_number()
        return found

    def _passes(
        self, x_labels: Int64Array, y_labels: Int64Array
    ) -> tuple[tuple[PassPlan, ...], Placement]:
        if self.num_passes == 1:
            plan, change = self._pass(gallery=y_labels, probe=x_labels)
            return (plan,), change
        with self.slots.rolled_back():
            first, _ = self._pass(gallery=y_labels, probe=x_labels)
        second, change = self._pass(gallery=x_labels, probe=y_labels)
        return (first, second), change

    def _next_number(self) -> int:
        self.num_changes += 1
        return self.num_changes - 1

    def _pass(self, *, gallery: Int64Array, probe: Int64Array) -> tuple[PassPlan, Placement]:
        placed = self.slots.insert(gallery)
        targets = self.slots.find(probe)
        kept = placed.kept if self.features == FEATURES else placed.newest
        inside = np.flatnonzero(targets >= 0)
        plan = PassPlan(
            kept=_tensor(kept),
            slots=_tensor(placed.slots[kept]),
            rows=_tensor(placed.rows[kept]),
            num_filled=self.slots.num_filled,
            again=_tensor(np.unique(placed.slots[placed.again])),
            inside=_tensor(inside),
            targets=_tensor(targets[inside]),
            outside=_tensor(np.flatnonzero(targets < 0)),
        )
        return plan, placed


class SlotLedger:
    """State of the slots after the last step that was trained, however far a planner is ahead.

    `num_changes` counts what has led to it: steps and prefills.
    """

    def __init__(self, num_slots: int) -> None:
        self._identities = np.full(num_slots, -1, np.int32)
        self._next_rows = np.zeros(num_slots, np.int8)
        self._used = np.full(num_slots, -1, np.int64)  # time of the last use
        self._time = 0
        self.num_changes = 0

    def apply(self, change: Placement) -> None:
        """A step has been trained."""
        slots = change.used
        self._identities[slots] = change.identities
        self._next_rows[slots] = change.next_rows
        self._used[slots] = self._time + np.arange(len(slots))
        self._time += len(slots)
        self.num_changes += 1

    def check_next(self, plan: StepPlan) -> None:
        """Raise ConfigError unless `plan` is of the step that follows this state."""
        if plan.number != self.num_changes:
            raise ConfigError(
                f"the plan is of step {plan.number + 1} of the pool, expected step "
                f"{self.num_changes + 1} (prefills count): train every batch in order and once; "
                "call loader.batches(step) anew after prefill, load_state_dict or an error"
            )

    def state(self) -> SlotState:
        """What a planner of the next step starts from."""
        filled = int((self._used >= 0).sum())
        return SlotState(
            self._identities[:filled].astype(np.int64),
            np.argsort(self._used[:filled]),
            self._next_rows[:filled].astype(np.int64),
        )

    def restore(self, state: SlotState, *, num_changes: int = 0) -> None:
        """Go to a state that so many changes have led to."""
        filled = len(state.order)
        self._used.fill(-1)
        self._used[state.order] = np.arange(filled)
        self._identities[:filled], self._next_rows[:filled] = state.identities, state.next_rows
        self._time, self.num_changes = filled, num_changes


def _tensor(values: Int64Array) -> Tensor:
    return torch.from_numpy(values.astype(np.int64, copy=False))

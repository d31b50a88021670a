"""Running averages of scalars: all the state a margin or a rule has."""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyface.base.errors import CheckpointError


class RunningAverages:
    """Named exponential moving averages, each a float64 scalar on the device of the last batch.

    As tensors without dimensions they never change the dtype of what they are combined with, and
    updating them needs no copy to the host.
    """

    def __init__(self, **start: float) -> None:
        self._values = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        """The average, [] float64."""
        return self._values[name]

    def update(self, weight: float, **new: Tensor) -> None:
        """value <- (1 - weight) value + weight new, for scalars `new`."""
        for name, value in new.items():
            value = value.detach().to(torch.float64)
            old = self._values[name].to(value.device)
            self._values[name] = (1.0 - weight) * old + weight * value

    def state(self) -> dict[str, Tensor]:
        """Copies of all averages, for a checkpoint."""
        return {name: value.clone() for name, value in self._values.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`.

        Raises:
            CheckpointError: other names, or a value that is no finite scalar.
        """
        if state.keys() != self._values.keys():
            raise CheckpointError(
                f"expected running averages {sorted(self._values)}, got {sorted(state)}: "
                "load into the margin and the rule that were saved"
            )
        for name, value in state.items():
            if value.dim() != 0 or not bool(torch.isfinite(value)):
                raise CheckpointError(
                    f"running average {name} must be one finite number, got {value.tolist()}: "
                    "the checkpoint cannot be trusted, take an older one"
                )
        self._values = {name: value.detach().double().clone() for name, value in state.items()}

"""The running averages of a head's margin and rule, as part of the head's state."""

from collections.abc import Mapping

from torch import Tensor, nn

from manyface.base.errors import CheckpointError
from manyface.margins import Stateful


class Averages(nn.Module):
    """Puts the averages of those of `parts` that are `Stateful` into a `state_dict`, by name.

    It holds the averages and not the parts, so that a head may take another margin that shares
    them (`dataclasses.replace`).
    """

    def __init__(self, **parts: Stateful) -> None:
        super().__init__()
        self._running = {name: part.running for name, part in parts.items()}

    @staticmethod
    def of(**parts: object) -> "Averages | None":
        """Of the parts that have averages; None, and nothing in a state, where none has."""
        stateful = {name: part for name, part in parts.items() if isinstance(part, Stateful)}
        return Averages(**stateful) if stateful else None

    def get_extra_state(self) -> dict[str, dict[str, Tensor]]:
        """Part -> name -> average, [] float64."""
        return {part: running.state() for part, running in self._running.items()}

    def set_extra_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Inverse of `get_extra_state`.

        Raises:
            CheckpointError: averages of other parts, or not those that the parts keep.
        """
        if state.keys() != self._running.keys():
            raise CheckpointError(
                f"expected running averages of {sorted(self._running)}, got {sorted(state)}: "
                "load into a head with the margin and the rule that were saved"
            )
        for part, values in state.items():
            self._running[part].load_state(values)

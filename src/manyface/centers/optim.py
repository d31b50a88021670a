"""Row-sparse optimizers: one update of some rows of a table, in place.

Mode `frozen`, the rule of Partial FC 2020 (arXiv 2010.05222): a row that took no part in a step
keeps its bits, its momentum included; no decay, no drift. When it takes part again it continues
with the momentum it was left with. (insightface's PartialFC_V2 moves every row in every step.)
"""

from dataclasses import dataclass

from torch import Tensor

from manyface.base.errors import ConfigError


@dataclass(frozen=True)
class RowSGD:
    """SGD with momentum and weight decay, in the order of `torch.optim.SGD` (dampening 0)."""

    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"momentum of the head must be in [0, 1), got {self.momentum}")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"weight decay of the head must be >= 0, got {self.weight_decay}")

    def update_(self, rows: Tensor, velocity: Tensor, gradient: Tensor, *, lr: float) -> None:
        """Update `rows` and `velocity` in place; all [n, D]. `gradient` is overwritten."""
        gradient.add_(rows, alpha=self.weight_decay)
        velocity.mul_(self.momentum).add_(gradient)
        rows.add_(velocity, alpha=-lr)

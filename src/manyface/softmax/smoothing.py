"""What label smoothing sums over a sample's negatives; formulas 8 in `streamed`."""

import torch
from torch import Tensor


class EvenSums:
    """Sums over the negatives that take part, which all get an even share of the label.

    Attributes:
        count: K_i - 1, [B, 1].
        logits: G_i, [B, 1].
        pull: P_i, [B, D].
    """

    def __init__(self, unit: Tensor) -> None:
        """`unit` is x^ [B, D]."""
        self.count, self.logits = unit.new_zeros(2, unit.shape[0], 1)
        self.pull = torch.zeros_like(unit)

    def add(self, logits: Tensor, pull: Tensor) -> None:
        """A chunk by a rule: g [B, n], -inf where one takes no part, and sum_j g'_ij w^_j."""
        takes_part = logits > -torch.inf
        self.count += takes_part.sum(dim=1, keepdim=True)
        self.logits += torch.where(takes_part, logits, 0.0).sum(dim=1, keepdim=True)
        self.pull += pull

    def add_everything(self, operand: Tensor, inverse: Tensor) -> None:
        """A chunk without a rule: w [n, D] and 1 / |w| [n, 1]; the own row is `leave_out`'s."""
        self.count += operand.shape[0]
        self.pull += inverse.T @ operand.to(inverse.dtype)  # [1, D], for all samples

    def leave_out(self, own_unit: Tensor, unit: Tensor, samples: Tensor) -> None:
        """Take w^_y [b, D] of `samples` [b] out of what `add_everything` has summed.

        G_i = x^_i . P_i. The sums of several ranks may be added up afterwards.
        """
        self.count[samples] -= 1
        self.pull.index_add_(0, samples, own_unit, alpha=-1.0)
        self.logits = (unit * self.pull).sum(dim=1, keepdim=True)

r"""The steps since all rows of a table were last brought up to date, as products of small matrices.

A step that a row misses (its gradient is zero) changes the row and its state by a linear map that
is the same for all rows, x <- A_t x, A_t [m, m]. With t steps finished, a row that includes the
first tau of them is brought up to date by

    S_tau = A_{t-1} A_{t-2} ... A_tau,        S_t = I.

All rows include the steps before the window's start, so tau runs from there. One more step is A_t
on the left of every S_tau with tau <= t, a single batched product; what lies behind the end of the
window stays I. So a step costs O(bound) products of m x m matrices, m <= 2, however long training
has lasted, and the window is 8 m^2 (bound + 1) bytes. The products are kept in float64 and rounded
once, when they are applied.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyface.base.errors import CheckpointError, ConfigError


class Window:
    """Products S_tau of the steps in the window.

    Args:
        size: m, rows of a transition.
        bound: most steps in the window.

    Attributes:
        start: steps before the window, which all rows include.
        length: steps in the window.

    Raises:
        ConfigError: `bound` is below 1 or too large for the int32 that rows keep.
    """

    def __init__(self, *, size: int, bound: int) -> None:
        if not 1 <= bound < 2**31 - 1:
            raise ConfigError(
                f"the window of missed steps needs a bound in [1, 2^31 - 2], got {bound}; "
                "the default is 1024"
            )
        self.size, self.bound = size, bound
        self.start, self.length = 0, 0
        self._products = torch.eye(size, dtype=torch.float64).repeat(bound + 1, 1, 1)

    @property
    def num_steps(self) -> int:
        """t, steps finished since the beginning."""
        return self.start + self.length

    @property
    def is_full(self) -> bool:
        """Whether no step can be appended before a `clear`."""
        return self.length == self.bound

    def append(self, transition: list[list[float]]) -> None:
        """Append the step A_t, [m][m]."""
        if self.is_full:
            raise RuntimeError(
                f"the window of missed steps is full ({self.bound} steps): call flush_ on the "
                "optimizer whenever its `window_is_full` is true after a step"
            )
        older = self._products[: self.length + 1]
        older.copy_(torch.tensor(transition, dtype=older.dtype, device=older.device) @ older)
        self.length += 1

    def products(self, touched: Tensor) -> Tensor:
        """S_tau of rows that include the first `touched` (int32 [n]) steps, float64 [n, m, m].

        Rows that are one step ahead, moved in the step that is under way, get I. A row from before
        the window is an IndexError: its `touched` belongs to another window.
        """
        if self._products.device != touched.device:
            with torch.inference_mode(False):  # an evaluation may be the first to ask
                self._products = self._products.to(touched.device)
        return self._products.index_select(0, touched - self.start)

    def gaps(self, touched: Tensor) -> Tensor:
        """Steps that rows have missed, t - tau, int32 [n]; 0 for rows one step ahead."""
        return (self.num_steps - touched).clamp_min_(0)

    def clear(self) -> None:
        """Begin a new window: all rows include all steps."""
        self._products.copy_(torch.eye(self.size, dtype=torch.float64))
        self.start, self.length = self.num_steps, 0

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of S_start ... S_t, float64 [length + 1, m, m], and of t, int64 []."""
        products = self._products[: self.length + 1].clone()
        return {"window": products, "num_steps": torch.tensor(self.num_steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with a saved window, perhaps of another bound.

        Raises:
            CheckpointError: it is of another rule, or longer than the bound.
        """
        saved, num_steps = state["window"], int(state["num_steps"])
        length = saved.shape[0] - 1 if saved.ndim == 3 else -1
        if saved.shape[1:] != (self.size, self.size) or not 0 <= length <= self.bound:
            raise CheckpointError(
                f"expected a window of at most {self.bound} missed steps, [steps + 1, "
                f"{self.size}, {self.size}], got {list(saved.shape)}; load it into an optimizer "
                "of the same mode and an equal or larger bound"
            )
        self.clear()
        self._products[: length + 1] = saved.to(self._products)
        self.start, self.length = num_steps - length, length

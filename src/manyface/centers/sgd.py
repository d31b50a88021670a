r"""Row-sparse SGD with momentum: three meanings of a step that a row misses.

`frozen`, the rule of Partial FC 2020 (arXiv 2010.05222): the row keeps its bits, its momentum
included; no decay, no drift. When it takes part again it continues with the momentum it was left
with.

`lazy-exact`, the rule of insightface's PartialFC_V2 and of `torch.optim.SGD` on the dense matrix,
whose gradient is zero for rows that took no part. With w a row, m its momentum, mu and wd the
constants and dampening 0, torch computes with gradient 0

    m' = mu m + wd w,        w' = w - lr_t m' = (1 - lr_t wd) w - lr_t mu m,

the same linear map for every row and every column:

    [w]      [1 - lr_t wd   -lr_t mu] [w]
    [m]  <-  [    wd            mu  ] [m]  =  A_t (w, m).

Missed steps are the product of their A_t, see `window.py`. Without momentum m' is used up at once
and the map is w <- (1 - lr_t wd) w: no velocity is kept.

`decay-only`, the rule of FBGEMM (torchrec) for sparse tables: missed steps apply their weight
decay, w <- (1 - lr_t wd) w; momentum stays as it was left.
"""

import math
from typing import Literal, get_args

from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.centers.lazy import DEFAULT_MAX_WINDOW, TOUCHED, RowOptimizer, RowState
from manyface.centers.window import Window

SGDMode = Literal["frozen", "lazy-exact", "decay-only"]
VELOCITY = "velocity"


class RowSGD(RowOptimizer):
    """SGD with momentum and weight decay, in the order of `torch.optim.SGD` (dampening 0).

    State of a row: `velocity` [D] if momentum > 0; `touched` int32 if missed steps matter.

    Args:
        momentum: mu in [0, 1).
        weight_decay: wd >= 0.
        mode: what a missed step does, see above. Where each step touches each row, as with the
            full head, all three are equal and `frozen` is the cheapest.
        max_window: steps between two flushes of the table, at most; nothing in mode `frozen`.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        mode: SGDMode = "frozen",
        *,
        max_window: int = DEFAULT_MAX_WINDOW,
    ) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ConfigError(f"momentum of the head must be in [0, 1), got {momentum}")
        if not 0.0 <= weight_decay < math.inf:
            raise ConfigError(f"weight decay of the head must be >= 0, got {weight_decay}")
        if mode not in get_args(SGDMode):
            raise ConfigError(
                f"mode of the head's SGD must be one of {', '.join(get_args(SGDMode))}, "
                f"got {mode!r}"
            )
        self.momentum, self.weight_decay, self.mode = momentum, weight_decay, mode
        size = self._transition_size()
        super().__init__(Window(size=size, bound=max_window) if size else None)

    def _transition_size(self) -> int:
        """Rows of A_t: 2 couples row and momentum, 1 is a factor, 0 means A_t = I."""
        if self.mode == "lazy-exact" and self.momentum > 0.0:
            return 2
        return 0 if self.mode == "frozen" or self.weight_decay == 0.0 else 1

    def _moments(self, dim: int) -> dict[str, tuple[int, ...]]:
        return {VELOCITY: (dim,)} if self.momentum > 0.0 else {}

    def _missed_step(self, lr: float) -> list[list[float]]:
        decay = 1.0 - lr * self.weight_decay
        if self._transition_size() == 1:
            return [[decay]]
        return [[decay, -lr * self.momentum], [self.weight_decay, self.momentum]]

    def _make_up_(self, rows: Tensor, state: RowState, window: Window) -> None:
        products = window.products(state[TOUCHED]).to(rows.dtype)[..., None]  # [n, m, m, 1]
        if window.size == 1:
            rows.mul_(products[:, 0, 0])
            return
        velocity, before = state[VELOCITY], rows.clone()
        rows.mul_(products[:, 0, 0]).addcmul_(velocity, products[:, 0, 1])
        velocity.mul_(products[:, 1, 1]).addcmul_(before, products[:, 1, 0])

    def _move_(self, rows: Tensor, state: RowState, gradient: Tensor, *, lr: float) -> None:
        gradient.add_(rows, alpha=self.weight_decay)
        if self.momentum > 0.0:
            gradient = state[VELOCITY].mul_(self.momentum).add_(gradient)
        rows.add_(gradient, alpha=-lr)

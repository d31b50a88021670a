r"""Row-sparse AdamW: touched rows move, missed steps decay.

With w a row, g its gradient, m and v its moments, t the step of the whole table counted from 1, a
step that touches the row is that of `torch.optim.AdamW` (Loshchilov & Hutter, arXiv 1711.05101):

    w <- (1 - lr_t wd) w
    m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2
    w <- w - lr_t / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)

A step that the row misses keeps all of it that is linear with gradient 0, applied when the row is
next read (gap = number of missed steps, products over them):

    w <- prod(1 - lr_t wd) w,    m <- b1^gap m,    v <- b2^gap v.

So m and v equal those of dense AdamW. *Not reproduced* is the movement of w in the gap: dense
AdamW goes on along the decaying m, by lr_t m_j / (sqrt(v_j) + eps) j steps after the touch (bias
corrections left out). It is not linear and the coordinates differ; its size is bounded, since
m_j / sqrt(v_j) = r^j m / sqrt(v) with r = b1 / sqrt(b2) < 1:

    distance after a gap  <=  max lr  max over s of (sqrt(1 - b2^s) / (1 - b1^s))
                              |m| / sqrt(v)  r / (1 - r)         for each coordinate,

r / (1 - r) = 9.05 ordinary steps at the default betas. *It is not small beside what is reproduced*:
of the movement that a lone touch causes in dense AdamW, one part is the touch and up to 9.05 are
the tail, so a rarely touched row moves about a tenth as far as in dense AdamW. b1 = 0 has no tail
and is dense AdamW exactly; for rare rows a larger learning rate stands in for the tail.

(FBGEMM, unlike dense AdamW, counts steps per row in the bias corrections; here a row that is first
touched late takes a first step of lr (1 - b1) / sqrt(1 - b2) = 3.2 lr per coordinate, as in dense
AdamW.)

`row_wise_second_moment`: one v per row, of the mean of g^2 over its columns; 4 bytes in place of
4 D. In gaps it decays alike.
"""

import math

import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.centers.lazy import DEFAULT_MAX_WINDOW, TOUCHED, RowOptimizer, RowState
from manyface.centers.window import Window

FIRST, SECOND = "first_moment", "second_moment"


class RowAdamW(RowOptimizer):
    """AdamW of the rows that a step touches; in gaps, decay of row and moments.

    State of a row: `first_moment` [D]; `second_moment` [D], or [1] if row-wise; `touched` int32.

    Args:
        betas: b1, b2 in [0, 1), with b1 < sqrt(b2) so that the tail dies out.
        eps: > 0.
        weight_decay: wd >= 0, decoupled.
        row_wise_second_moment: one v per row.
        max_window: steps between two flushes of the table, at most.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        row_wise_second_moment: bool = False,
        max_window: int = DEFAULT_MAX_WINDOW,
    ) -> None:
        _check(betas, eps=eps, weight_decay=weight_decay)
        self._steps = Window(size=1, bound=max_window)
        super().__init__(self._steps)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.row_wise_second_moment = row_wise_second_moment

    def _moments(self, dim: int) -> dict[str, tuple[int, ...]]:
        return {FIRST: (dim,), SECOND: (1 if self.row_wise_second_moment else dim,)}

    def _missed_step(self, lr: float) -> list[list[float]]:
        return [[1.0 - lr * self.weight_decay]]

    def _make_up_(self, rows: Tensor, state: RowState, window: Window) -> None:
        rows.mul_(window.products(state[TOUCHED])[:, 0].to(rows.dtype))
        gaps = window.gaps(state[TOUCHED])[:, None].to(torch.float64)  # [n, 1]
        for name, beta in zip((FIRST, SECOND), self.betas, strict=True):
            state[name].mul_(torch.pow(beta, gaps).to(rows.dtype))

    def _move_(self, rows: Tensor, state: RowState, gradient: Tensor, *, lr: float) -> None:
        (beta1, beta2), step = self.betas, self._steps.num_steps + 1
        first, second = state[FIRST], state[SECOND]
        rows.mul_(1.0 - lr * self.weight_decay)
        first.lerp_(gradient, 1.0 - beta1)
        square = gradient.square_()
        if self.row_wise_second_moment:
            square = square.mean(dim=1, keepdim=True)  # [n, 1]
        second.mul_(beta2).add_(square, alpha=1.0 - beta2)
        root = second.sqrt().div_(math.sqrt(1.0 - beta2**step)).add_(self.eps)
        rows.addcdiv_(first, root, value=-lr / (1.0 - beta1**step))


def _check(betas: tuple[float, float], *, eps: float, weight_decay: float) -> None:
    beta1, beta2 = betas
    if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0 and beta1 < math.sqrt(beta2)):
        raise ConfigError(
            f"betas of the head's AdamW must be in [0, 1) with beta1 < sqrt(beta2), got {betas}; "
            "the usual ones are (0.9, 0.999)"
        )
    if not 0.0 < eps < math.inf:
        raise ConfigError(f"eps of the head's AdamW must be > 0, got {eps}; the usual one is 1e-8")
    if not 0.0 <= weight_decay < math.inf:
        raise ConfigError(f"weight decay of the head must be >= 0, got {weight_decay}")

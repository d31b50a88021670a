r"""One step of SGD on the rows of a chunk, in place: read once, written once.

For each row w with its gradient g and momentum m (`centers/sgd.py` in the same order):

    g <- g - (g . w) w / |w|^2        the part tangent to the sphere; w = 0 leaves g
    g <- factor g + wd w
    m <- mu m + g,    w <- w - lr m

Rows and momentum may be bfloat16: computed with in float32 and rounded stochastically with the bits
of `centers/rounding.py`, from the hash of a row and the constants of the columns, which come from
there: the same float32 numbers are rounded to the same bfloat16. (The numbers themselves may differ
from torch's in their last bit, where a sum over a row is taken in another order.)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from manyface.kernels.noise import Noise

_LARGEST = tl.constexpr(3.3895313892515355e38)  # of bfloat16
_NAN = tl.constexpr(0x7FC00000)  # as in centers/rounding.py


@triton.jit
def _stored(values, words, columns, ROUNDS: tl.constexpr):
    """Float32 `values` as they are, or rounded to numbers of bfloat16; NaN stays."""
    if ROUNDS:
        noise = ((words * columns) >> 16) & 0xFFFF
        bounded = tl.minimum(tl.maximum(values, -_LARGEST), _LARGEST)
        bits = (bounded.to(tl.int32, bitcast=True) + noise) & -0x10000
        bits = tl.where(values == values, bits, _NAN)
        values = bits.to(tl.float32, bitcast=True)
    return values


@triton.jit
def row_update_kernel(
    rows,
    velocity,
    gradient,
    ids,
    row_words,
    velocity_words,
    columns,
    dim,
    factor,
    lr,
    momentum,
    weight_decay,
    HAS_VELOCITY: tl.constexpr,
    ROUNDS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One row; arguments as in `update_rows`. `columns` and words are read only if it ROUNDS."""
    place = tl.program_id(0).to(tl.int64)
    row = tl.load(ids + place)
    k = tl.arange(0, WIDTH)
    inside = k < dim
    w = tl.load(rows + row * dim + k, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradient + place * dim + k, mask=inside, other=0.0)
    square = tl.sum(w * w, axis=0)
    g = g - w * (tl.sum(g * w, axis=0) / tl.where(square > 0.0, square, 1.0))
    step = g * tl.load(factor) + w * weight_decay
    constants = tl.zeros((WIDTH,), dtype=tl.int32)
    row_word = tl.zeros((1,), dtype=tl.int32)
    velocity_word = row_word
    if ROUNDS:
        constants = tl.load(columns + k, mask=inside, other=0)
        row_word = tl.load(row_words + place)
    if HAS_VELOCITY:
        m = tl.load(velocity + row * dim + k, mask=inside, other=0.0).to(tl.float32)
        step = m * momentum + step
        if ROUNDS:
            velocity_word = tl.load(velocity_words + place)
        kept = _stored(step, velocity_word, constants, ROUNDS)
        tl.store(velocity + row * dim + k, kept.to(velocity.dtype.element_ty), mask=inside)
    moved = _stored(w - step * lr, row_word, constants, ROUNDS)
    tl.store(rows + row * dim + k, moved.to(rows.dtype.element_ty), mask=inside)


def update_rows(
    rows: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    ids: Tensor,
    *,
    factor: Tensor,
    lr: float,
    momentum: float,
    weight_decay: float,
    noise: Noise | None,
) -> None:
    """Move the rows `ids` in place.

    Args:
        rows: [N, D], float32, or bfloat16 with `noise`.
        velocity: [N, D] of the same dtype; None without momentum.
        gradient: float32 [n, D] of the rows; the part along a row has no effect.
        ids: int64 [n], distinct.
        factor: of the gradient, float32 scalar.
        lr: learning rate.
        momentum: mu.
        weight_decay: wd.
        noise: for bfloat16.
    """
    dim = rows.shape[1]
    if ids.shape[0] == 0:
        return
    with torch.cuda.device_of(rows):  # triton launches on the current one
        row_update_kernel[(ids.shape[0],)](
            rows,
            rows if velocity is None else velocity,
            gradient.contiguous(),
            ids.contiguous(),
            ids if noise is None else noise.rows,
            ids if noise is None else noise.velocity,
            ids if noise is None else noise.columns,
            dim,
            factor,
            lr,
            momentum,
            weight_decay,
            HAS_VELOCITY=velocity is not None,
            ROUNDS=noise is not None,
            WIDTH=triton.next_power_of_2(dim),
            enable_fp_fusion=False,  # rounded after each operation, as torch is
        )

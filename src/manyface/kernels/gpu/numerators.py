r"""Softmax numerators of a chunk of classes: one product, and all that is elementwise in its tail.

With queries a x^_i (a = s log2 e), rows w_j and inverse |w_j|^-1 as in `softmax/streamed.py`:

    E_ij    = 2^(queries_i . w_j / |w_j| - shift_i),    0 where j is i's own class
    sums_i  = sum_j E_ij
    values  = E_ij / |w_j|,    stored in the dtype of the operands

The exponents stay in registers; plain torch writes and reads a [B, n] matrix of float32 five times
for the same. Each tile of 64 x 64 sums its own rows, torch adds up the tiles of a sample: always in
the same order, no atomics. A place beyond the edge has exponent 0, not -inf, and 2^0 is no 0: it is
masked after exp2, like the own class. Offsets are int64; float32 is multiplied as such (ieee), not
as tf32. Sizes of tiles are fixed: chosen by a timing they would make ranks differ.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_SAMPLES, _CLASSES, _DEPTH = 64, 64, 32


@triton.jit
def numerators_kernel(
    queries,
    rows,
    inverse,
    own,
    shift,
    values,
    sums,
    num_samples,
    num_rows,
    dim,
    num_tiles,
    HAS_SHIFT: tl.constexpr,
    SAMPLES: tl.constexpr,
    CLASSES: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDENS: tl.constexpr,
):
    """One tile of SAMPLES x CLASSES; arguments as in `numerators`, sums [B, tiles]."""
    i = tl.program_id(0).to(tl.int64) * SAMPLES + tl.arange(0, SAMPLES)
    tile = tl.program_id(1).to(tl.int64)
    j = tile * CLASSES + tl.arange(0, CLASSES)
    is_sample, is_row = i < num_samples, j < num_rows
    dots = tl.zeros((SAMPLES, CLASSES), dtype=tl.float32)
    for start in range(0, dim, DEPTH):
        k = start + tl.arange(0, DEPTH)
        inside = k < dim
        x = tl.load(
            queries + i[:, None] * dim + k[None, :],
            mask=is_sample[:, None] & inside[None, :],
            other=0.0,
        )
        w = tl.load(
            rows + j[None, :] * dim + k[:, None], mask=is_row[None, :] & inside[:, None], other=0.0
        )
        if WIDENS:
            x, w = x.to(tl.float32), w.to(tl.float32)
        dots = tl.dot(x, w, dots, input_precision="ieee")
    over_length = tl.load(inverse + j, mask=is_row, other=0.0)
    exponents = dots * over_length[None, :]
    if HAS_SHIFT:
        exponents -= tl.load(shift + i, mask=is_sample, other=0.0)[:, None]
    own_place = tl.load(own + i, mask=is_sample, other=-1)
    counts = is_row[None, :] & (j[None, :] != own_place[:, None])
    exponentials = tl.where(counts, tl.exp2(exponents), 0.0)
    tl.store(sums + i * num_tiles + tile, tl.sum(exponentials, axis=1), mask=is_sample)
    tl.store(
        values + i[:, None] * num_rows + j[None, :],
        (exponentials * over_length[None, :]).to(values.dtype.element_ty),
        mask=is_sample[:, None] & is_row[None, :],
    )


def numerators(
    queries: Tensor, rows: Tensor, inverse: Tensor, own: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Values [B, n] in the dtype of `rows`, and their sums before the division, float32 [B, 1].

    Args:
        queries: a x^ [B, D], float32 or bfloat16.
        rows: w [n, D], same dtype.
        inverse: 1 / |w|, float32 [n, 1].
        own: int64 [B], place of each sample's own class in `rows`; outside of [0, n): not there.
        shift: subtracted from all exponents of a sample, float32 [B, 1]; or None.
    """
    (num_samples, dim), num_rows = queries.shape, rows.shape[0]
    tiles = triton.cdiv(num_rows, _CLASSES)
    values = rows.new_empty(num_samples, num_rows)
    sums = torch.empty(num_samples, tiles, dtype=torch.float32, device=rows.device)
    with torch.cuda.device_of(rows):  # triton launches on the current one
        numerators_kernel[(triton.cdiv(num_samples, _SAMPLES), tiles)](
            queries.contiguous(),
            rows.contiguous(),
            inverse.contiguous(),
            own,
            sums if shift is None else shift.contiguous(),
            values,
            sums,
            num_samples,
            num_rows,
            dim,
            tiles,
            HAS_SHIFT=shift is not None,
            SAMPLES=_SAMPLES,
            CLASSES=_CLASSES,
            DEPTH=_DEPTH,
            WIDENS=triton.knobs.runtime.interpret,  # which cannot multiply bfloat16
            enable_fp_fusion=True,
        )
    return values, sums.sum(dim=1, keepdim=True)

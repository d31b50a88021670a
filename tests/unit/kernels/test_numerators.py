"""Numerators by the kernel and by plain torch; interpreted where there is no GPU (conftest.py)."""

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from manyface.kernels.numerators import numerators

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALE = 16.0 * math.log2(math.e)


def inputs(batch: int, rows: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(batch + rows + dim)
    unit = torch.nn.functional.normalize(torch.randn(batch, dim, generator=draw))
    centers = torch.randn(rows, dim, generator=draw)
    inverse = 1.0 / torch.linalg.vector_norm(centers, dim=1, keepdim=True)
    queries = (SCALE * unit).to(dtype)
    return queries.to(DEVICE), centers.to(dtype).to(DEVICE), inverse.to(DEVICE)


def plain(
    queries: Tensor, rows: Tensor, inverse: Tensor, own: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    exponents = (queries.double() @ rows.double().T) * inverse.double().T
    exponents = exponents if shift is None else exponents - shift
    found = torch.exp2(exponents)
    for sample, place in enumerate(own.tolist()):
        if 0 <= place < rows.shape[0]:
            found[sample, place] = 0.0
    return found * inverse.T, found.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "batch, rows, dim", [(1, 1, 1), (3, 1, 5), (7, 13, 11), (65, 67, 33), (64, 128, 32)]
)
def test_as_plain(batch: int, rows: int, dim: int, dtype: torch.dtype, shifted: bool) -> None:
    queries, centers, inverse = inputs(batch, rows, dim, dtype)
    # Some own classes are in the chunk, some before it, some after it.
    own = torch.arange(batch, device=DEVICE) * 3 % (rows + 4) - 2
    shift = torch.linspace(-1, 1, batch, device=DEVICE)[:, None] if shifted else None
    values, sums = numerators(queries, centers, inverse, own, shift)
    expected, total = plain(queries, centers, inverse, own, shift)
    # To bfloat16 a GPU rounds to nearest, the interpreter cuts off: less than 2^-7 in either case.
    tolerance = {"rtol": 1e-5 if dtype == torch.float32 else 2**-7, "atol": 1e-30}
    torch.testing.assert_close(values.double(), expected, **tolerance)
    torch.testing.assert_close(sums.double(), total, rtol=1e-5, atol=1e-30)
    assert values.dtype == dtype
    assert sums.shape == (batch, 1)


def test_a_chunk_of_own_classes_alone_adds_nothing() -> None:
    """Padding up to the tile counts 0, not exp2(0)."""
    queries, centers, inverse = inputs(5, 1, 4, torch.float32)
    own = torch.zeros(5, dtype=torch.int64, device=DEVICE)
    values, sums = numerators(queries, centers, inverse, own, None)
    assert not values.any()
    assert not sums.any()


def test_rows_without_direction_count_as_cosine_zero() -> None:
    queries, centers, _ = inputs(2, 3, 4, torch.float32)
    own = torch.full((2,), -1, device=DEVICE)
    zero = torch.zeros(3, 1, device=DEVICE)
    values, sums = numerators(queries, torch.zeros_like(centers), zero, own, None)
    assert not values.any()
    assert torch.equal(sums, torch.full_like(sums, 3.0))


def test_twice_the_same_bits() -> None:
    arguments = (*inputs(65, 130, 32, torch.float32), torch.arange(65, device=DEVICE), None)
    assert torch.equal(numerators(*arguments)[1], numerators(*arguments)[1])

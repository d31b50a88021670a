"""Numerators by each kernel and by plain torch."""

import math

import pytest
import torch
from languages import Language
from torch import Tensor

SCALE = 16.0 * math.log2(math.e)


def inputs(
    device: torch.device, batch: int, rows: int, dim: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(batch + rows + dim)
    unit = torch.nn.functional.normalize(torch.randn(batch, dim, generator=draw))
    centers = torch.randn(rows, dim, generator=draw)
    inverse = 1.0 / torch.linalg.vector_norm(centers, dim=1, keepdim=True)
    queries = (SCALE * unit).to(dtype)
    return queries.to(device), centers.to(dtype).to(device), inverse.to(device)


def plain(
    products: Tensor, inverse: Tensor, own: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    exponents = products.double() * inverse.double().T
    exponents = exponents if shift is None else exponents - shift
    found = torch.exp2(exponents)
    for sample, place in enumerate(own.tolist()):
        if 0 <= place < products.shape[1]:
            found[sample, place] = 0.0
    return found * inverse.T, found.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "batch, rows, dim", [(1, 1, 1), (3, 1, 5), (7, 13, 11), (65, 67, 33), (64, 128, 32)]
)
def test_as_plain(
    language: Language, batch: int, rows: int, dim: int, dtype: torch.dtype, shifted: bool
) -> None:
    queries, centers, inverse = inputs(language.device, batch, rows, dim, dtype)
    # Some own classes are in the chunk, some before it, some after it.
    own = torch.arange(batch, device=language.device) * 3 % (rows + 4) - 2
    shift = torch.linspace(-1, 1, batch, device=language.device)[:, None] if shifted else None
    values, sums = language.kernels.numerators(queries, centers, inverse, own, shift)
    if language.choice.language == "c++":  # torch's product of bfloat16 is rounded to it
        products = queries @ centers.T
    else:
        products = queries.double() @ centers.double().T
    expected, total = plain(products, inverse, own, shift)
    # To bfloat16 a GPU rounds to nearest, the interpreter cuts off: less than 2^-7 in either case.
    tolerance = {"rtol": 1e-5 if dtype == torch.float32 else 2**-7, "atol": 1e-30}
    torch.testing.assert_close(values.double(), expected, **tolerance)
    torch.testing.assert_close(sums.double(), total, rtol=1e-5, atol=1e-30)
    assert values.dtype == dtype
    assert sums.shape == (batch, 1)


def test_a_chunk_of_own_classes_alone_adds_nothing(language: Language) -> None:
    """Padding up to the tile counts 0, not exp2(0)."""
    queries, centers, inverse = inputs(language.device, 5, 1, 4, torch.float32)
    own = torch.zeros(5, dtype=torch.int64, device=language.device)
    values, sums = language.kernels.numerators(queries, centers, inverse, own, None)
    assert not values.any()
    assert not sums.any()


def test_rows_without_direction_count_as_cosine_zero(language: Language) -> None:
    queries, centers, _ = inputs(language.device, 2, 3, 4, torch.float32)
    own = torch.full((2,), -1, device=language.device)
    zero = torch.zeros(3, 1, device=language.device)
    values, sums = language.kernels.numerators(queries, torch.zeros_like(centers), zero, own, None)
    assert not values.any()
    assert torch.equal(sums, torch.full_like(sums, 3.0))


def test_twice_the_same_bits(language: Language) -> None:
    own = torch.arange(65, device=language.device)
    arguments = (*inputs(language.device, 65, 130, 32, torch.float32), own, None)
    first, second = (language.kernels.numerators(*arguments) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])

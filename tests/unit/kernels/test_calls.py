"""Tensors become pointers: what they point to must be what the kernel takes it for."""

from collections.abc import Iterator

import pytest
import torch

from manyface.kernels import choose, cpu

pytestmark = pytest.mark.skipif(
    choose(torch.device("cpu")).language != "c++", reason=str(choose(torch.device("cpu")))
)


@pytest.fixture
def other_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with torch.device("meta"):
        yield
    torch.set_default_dtype(torch.float32)


def test_whatever_torch_makes_by_default(other_defaults: None) -> None:
    """What the kernels write into is float32 in memory, or they would write beside it."""
    rows = torch.randn(7, 5, dtype=torch.float32, device="cpu")
    inverse = cpu.inverse_lengths(rows)
    torch.testing.assert_close(inverse, 1 / rows.norm(dim=1, keepdim=True))
    own = torch.zeros(7, dtype=torch.int32, device="cpu")
    values, sums = cpu.numerators(rows, rows, inverse, own, None)
    assert (values[:, 0] == 0).all()
    torch.testing.assert_close(sums, (values / inverse.T).sum(dim=1, keepdim=True))
    tangent = cpu.tangent_part(rows.to(torch.bfloat16), rows, inverse)
    assert tangent.abs().max() < 0.1

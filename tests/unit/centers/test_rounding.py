"""Stochastic rounding: unbiased, between the neighbours, the same wherever it is done."""

import pytest
import torch

from manyface.centers.rounding import StochasticRounding

DIM = 96


def rounded(
    values: torch.Tensor, *, step: int = 0, lane: str = "a", first: int = 0
) -> torch.Tensor:
    ids = torch.arange(first, first + values.shape[0])
    return StochasticRounding(seed=3, dim=DIM).round_(values.clone(), ids, step=step, lane=lane)


def some(rows: int = 40) -> torch.Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(1)) * 0.01


def test_results_are_the_neighbours_of_the_value() -> None:
    values = some()
    got = rounded(values)
    assert torch.equal(got.bfloat16().float(), got)
    down = (values.view(torch.int32) & -0x10000).view(torch.float32)
    up = ((values.view(torch.int32) & -0x10000) + 0x10000).view(torch.float32)
    assert bool(((got == down) | (got == up)).all())
    assert bool((got == down).any())
    assert bool((got == up).any())


def test_the_mean_over_steps_is_the_value() -> None:
    values = some(8)
    count = 4000
    mean = sum(rounded(values, step=step).double() for step in range(count)) / count
    ulp = (values.abs() * 2.0**-7).double()
    # A share of p draws has a deviation of at most 0.5 / sqrt(count).
    assert float(((mean - values).abs() / ulp).max()) < 5 * 0.5 / count**0.5


def test_columns_of_a_row_and_rows_of_a_column_are_drawn_apart() -> None:
    halfway = torch.full((2000, DIM), 1.0 + 2.0**-8)  # half of the last bit
    up = (rounded(halfway) > halfway).double()
    correlation = torch.corrcoef(up.T)
    assert float((correlation - torch.eye(DIM)).abs().max()) < 6 / 2000**0.5
    assert float(up.mean(dim=1).std()) < 2 * 0.5 / DIM**0.5


def test_bits_depend_on_row_step_and_lane_and_on_nothing_else() -> None:
    values = some()
    assert torch.equal(rounded(values)[10:30], rounded(values[10:30], first=10))
    assert not torch.equal(rounded(values), rounded(values, step=1))
    assert not torch.equal(rounded(values), rounded(values, lane="b"))
    assert not torch.equal(rounded(values), rounded(values, first=1))


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 1e-38, torch.finfo(torch.bfloat16).max])
def test_what_bfloat16_holds_stays(value: float) -> None:
    values = torch.full((3, DIM), value).bfloat16().float()
    assert torch.equal(rounded(values), values)


def test_the_ends_of_the_range() -> None:
    largest = torch.finfo(torch.bfloat16).max
    for value, expected in ((torch.inf, largest), (-torch.inf, -largest), (3.4e38, largest)):
        assert torch.equal(rounded(torch.full((2, DIM), value)), torch.full((2, DIM), expected))


# That of CPUs, that of GPUs, one whose payload is cut off, and a negative one.
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0x7F800001, -1])
def test_every_nan_stays(bits: int) -> None:
    values = torch.full((2, DIM), bits, dtype=torch.int32).view(torch.float32)
    assert bool(rounded(values).bfloat16().isnan().all())

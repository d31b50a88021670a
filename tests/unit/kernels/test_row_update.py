"""The row update by each kernel, against RowSGD and StochasticRounding."""

from typing import Any

import pytest
import torch
from languages import Language
from torch import Tensor

from manyface.centers import RowSGD
from manyface.centers.rounding import StochasticRounding
from manyface.kernels import Noise

SEED, STEP = 5, 9


def noise(rounding: StochasticRounding, ids: Tensor, device: torch.device) -> Noise:
    words = [
        rounding.words(ids, step=STEP, lane=f"update {name}").to(device)
        for name in ("weight", "velocity")
    ]
    return Noise(*words, rounding.columns(device))


def tensors(rows: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, their momentum, and a gradient that is tangent to them."""
    draw = torch.Generator().manual_seed(rows + dim)
    weight, velocity, gradient = torch.randn(3, rows, dim, generator=draw)
    weight[0] = 0.0
    weight = weight.to(dtype)
    stored = weight.float()
    square = stored.square().sum(dim=1, keepdim=True).clamp_min(1e-30)
    gradient -= stored * ((gradient * stored).sum(dim=1, keepdim=True) / square)
    return weight, velocity.to(dtype), gradient


def expected(
    weight: Tensor, velocity: Tensor, gradient: Tensor, ids: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    rows, state = weight[ids].float(), {"velocity": velocity[ids].float()}
    RowSGD(momentum, 0.01)._move_(rows, state, 0.5 * gradient[ids], lr=0.1)
    return rows, state["velocity"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows, dim", [(1, 1), (4, 8), (9, 13), (40, 100)])
def test_as_row_sgd(
    language: Language, rows: int, dim: int, dtype: torch.dtype, momentum: float
) -> None:
    weight, velocity, gradient = tensors(rows, dim, dtype)
    ids = torch.arange(0, rows, 2)
    moved, kept = expected(weight, velocity, gradient, ids, momentum)
    rounding, device = StochasticRounding(seed=SEED, dim=dim), language.device
    ours, ours_velocity = weight.to(device, copy=True), velocity.to(device, copy=True)
    language.kernels.update_rows(
        ours,
        ours_velocity if momentum else None,
        gradient[ids].to(device),
        ids.to(device),
        factor=torch.tensor(0.5, device=device),
        lr=0.1,
        momentum=momentum,
        weight_decay=0.01,
        noise=noise(rounding, ids, device) if dtype == torch.bfloat16 else None,
    )
    results = {"weight": (ours, weight, moved), "velocity": (ours_velocity, velocity, kept)}
    for name, (found, before, wanted) in results.items():
        if name == "velocity" and not momentum:
            assert torch.equal(found.cpu(), before)
            continue
        if dtype == torch.bfloat16:
            rounding.round_(wanted, ids, step=STEP, lane=f"update {name}")
        # In bfloat16 a last bit of float32 may tip the rounding: one unit of 2^-7 at most.
        tolerance = {"rtol": 2**-7 if dtype == torch.bfloat16 else 1e-5, "atol": 1e-6}
        torch.testing.assert_close(found.cpu()[ids].float(), wanted, **tolerance)
        others = torch.ones(rows, dtype=torch.bool)
        others[ids] = False
        assert torch.equal(found.cpu()[others], before[others])
        if dtype == torch.bfloat16:
            assert (found.cpu()[ids].float() == wanted).float().mean() > 0.97
        if language.choice.language == "c++":  # rounded where torch rounds
            assert torch.equal(found[ids].float(), wanted)


def plain_step(language: Language) -> dict[str, Any]:
    """A row less its gradient."""
    one = torch.ones((), device=language.device)
    return {"factor": one, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


def test_rounding_has_the_bits_of_the_table(language: Language) -> None:
    """Rows of zero at lr 1: what is rounded is the gradient itself."""
    draw = torch.Generator().manual_seed(1)
    gradient = torch.randn(33, 20, generator=draw) * torch.logspace(-30, 30, 20)
    gradient[0, :4] = torch.tensor([3.4e38, -3.4e38, 3.389e38, 0.0])
    ids = torch.arange(33)
    rounding = StochasticRounding(seed=SEED, dim=20)
    rows = torch.zeros(33, 20, dtype=torch.bfloat16, device=language.device)
    language.kernels.update_rows(
        rows,
        None,
        gradient.to(language.device),
        ids.to(language.device),
        **plain_step(language),
        noise=noise(rounding, ids, language.device),
    )
    wanted = rounding.round_(-gradient, ids, step=STEP, lane="update weight")
    assert torch.equal(rows.cpu().float(), wanted)


def test_no_rows(language: Language) -> None:
    rows = torch.ones(3, 4, device=language.device)
    nobody = torch.empty(0, dtype=torch.int64, device=language.device)
    language.kernels.update_rows(rows, None, rows[:0], nobody, **plain_step(language), noise=None)
    assert torch.equal(rows, torch.ones_like(rows))


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])  # of CPUs, of GPUs, negative
def test_nan_stays(language: Language, bits: int) -> None:
    rows = torch.ones(1, 4, dtype=torch.bfloat16, device=language.device)
    gradient = torch.zeros(1, 4, device=language.device)
    gradient.view(torch.int32)[0, 1] = bits
    ids = torch.zeros(1, dtype=torch.int64)
    rounding = StochasticRounding(seed=SEED, dim=4)
    language.kernels.update_rows(
        rows,
        None,
        gradient,
        ids.to(language.device),
        **plain_step(language),
        noise=noise(rounding, ids, language.device),
    )
    assert bool(rows.isnan()[0, 1])

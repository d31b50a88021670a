"""The row update by the kernel, against RowSGD and StochasticRounding."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton is not installed")

from manyface.centers import RowSGD
from manyface.centers.rounding import StochasticRounding
from manyface.kernels.row_update import Noise, update_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED, STEP = 5, 9


def noise(rounding: StochasticRounding, ids: Tensor) -> Noise:
    words = [
        rounding.words(ids, step=STEP, lane=f"update {name}").to(DEVICE)
        for name in ("weight", "velocity")
    ]
    return Noise(*words, rounding.columns(torch.device(DEVICE)))


def tensors(rows: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(rows + dim)
    weight, velocity, gradient = torch.randn(3, rows, dim, generator=draw)
    weight[0] = 0.0
    return weight.to(dtype), velocity.to(dtype), gradient


def expected(
    weight: Tensor, velocity: Tensor, gradient: Tensor, ids: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    rows, state = weight[ids].float(), {"velocity": velocity[ids].float()}
    square = rows.square().sum(dim=1, keepdim=True).clamp_min(1e-30)
    tangent = gradient - rows * ((gradient * rows).sum(dim=1, keepdim=True) / square)
    RowSGD(momentum, 0.01)._move_(rows, state, 0.5 * tangent, lr=0.1)
    return rows, state["velocity"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows, dim", [(1, 1), (4, 8), (9, 13)])
def test_as_row_sgd(rows: int, dim: int, dtype: torch.dtype, momentum: float) -> None:
    weight, velocity, gradient = tensors(rows, dim, dtype)
    ids = torch.arange(0, rows, 2)
    gradient = gradient[: len(ids)].contiguous()
    moved, kept = expected(weight, velocity, gradient, ids, momentum)
    rounding = StochasticRounding(seed=SEED, dim=dim)
    ours, ours_velocity = weight.to(DEVICE, copy=True), velocity.to(DEVICE, copy=True)
    update_rows(
        ours,
        ours_velocity if momentum else None,
        gradient.to(DEVICE),
        ids.to(DEVICE),
        factor=torch.tensor(0.5, device=DEVICE),
        lr=0.1,
        momentum=momentum,
        weight_decay=0.01,
        noise=noise(rounding, ids) if dtype == torch.bfloat16 else None,
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


def test_rounding_has_the_bits_of_the_table() -> None:
    """Rows of zero at lr 1: what is rounded is the gradient itself."""
    draw = torch.Generator().manual_seed(1)
    gradient = torch.randn(33, 20, generator=draw) * torch.logspace(-30, 30, 20)
    gradient[0, :4] = torch.tensor([3.4e38, -3.4e38, 3.389e38, 0.0])
    ids = torch.arange(33)
    rounding = StochasticRounding(seed=SEED, dim=20)
    rows = torch.zeros(33, 20, dtype=torch.bfloat16, device=DEVICE)
    update_rows(
        rows,
        None,
        gradient.to(DEVICE),
        ids.to(DEVICE),
        factor=torch.ones((), device=DEVICE),
        lr=1.0,
        momentum=0.0,
        weight_decay=0.0,
        noise=noise(rounding, ids),
    )
    wanted = rounding.round_(-gradient, ids, step=STEP, lane="update weight")
    assert torch.equal(rows.cpu().float(), wanted)


def test_no_rows() -> None:
    rows = torch.ones(3, 4, device=DEVICE)
    nobody = torch.empty(0, dtype=torch.int64, device=DEVICE)
    one = torch.ones((), device=DEVICE)
    constants = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "noise": None}
    update_rows(rows, None, rows[:0], nobody, factor=one, **constants)
    assert torch.equal(rows, torch.ones_like(rows))

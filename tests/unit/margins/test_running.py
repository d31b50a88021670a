"""Running averages: what they become, and that they go into a checkpoint and out again."""

import pytest
import torch

from manyface.base.errors import CheckpointError
from manyface.margins import RunningAverages


def test_an_average_moves_by_its_weight_in_double() -> None:
    running = RunningAverages(mean=20.0, std=100.0)
    running.update(0.01, mean=torch.tensor(10.0))
    assert float(running["mean"]) == pytest.approx(0.99 * 20.0 + 0.01 * 10.0, rel=1e-15)
    assert float(running["std"]) == 100.0
    assert running["mean"].dtype == torch.float64


def test_state_comes_back_and_is_a_copy() -> None:
    running, other = RunningAverages(t=0.0), RunningAverages(t=0.0)
    running.update(0.5, t=torch.tensor(0.8))
    saved = running.state()
    other.load_state(saved)
    running.update(0.5, t=torch.tensor(0.8))
    assert torch.equal(other["t"], saved["t"])
    assert not torch.equal(running["t"], saved["t"])


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"mean": torch.tensor(1.0)},
        {"mean": torch.tensor(1.0), "std": torch.tensor(1.0), "t": torch.tensor(1.0)},
        {"mean": torch.tensor(float("nan")), "std": torch.tensor(1.0)},
        {"mean": torch.zeros(2), "std": torch.tensor(1.0)},
    ],
)
def test_a_strange_state_is_refused_and_changes_nothing(state: dict[str, torch.Tensor]) -> None:
    running = RunningAverages(mean=20.0, std=100.0)
    with pytest.raises(CheckpointError, match="running average"):
        running.load_state(state)
    assert running.state() == {"mean": torch.tensor(20.0), "std": torch.tensor(100.0)}


def test_averages_carry_no_graph() -> None:
    running = RunningAverages(t=0.0)
    running.update(0.5, t=torch.ones((), requires_grad=True))
    assert not running["t"].requires_grad

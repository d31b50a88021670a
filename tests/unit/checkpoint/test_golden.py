"""Checkpoints of every version of the format that was ever written are read, bit for bit.

Made by `save_state` of a tree of known draws: version 1 by one process, version 2 by three ranks.
"""

from pathlib import Path

import pytest
import torch

from manyface.checkpoint import load, newest
from manyface.train.state import read_position, take_rows, unpack_groups

GOLDEN = Path(__file__).parents[2] / "golden"


def expected() -> dict[str, dict[str, object]]:
    draw = torch.Generator().manual_seed(1)
    backbone = {
        "conv.weight": torch.randn(2, 3, generator=draw),
        "half": torch.randn(5, generator=draw).bfloat16(),
        "count": torch.tensor(41),
    }
    momentum = torch.randn(2, 3, generator=draw)
    head = {
        "centers.weight": torch.randn(7, 4, generator=draw),
        "centers.velocity": torch.randn(7, 4, generator=draw).bfloat16(),
        "centers.last_step": torch.arange(7),
    }
    optimizer = {
        "state": {0: {"momentum": momentum, "betas": (0.9, 0.999)}},
        "groups": [{"lr": 0.1 + 0.2, "on": True, "fused": None}],
    }
    return {"backbone": backbone, "optimizer": optimizer, "head": head}


def assert_same(found: object, wanted: object) -> None:
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


@pytest.mark.parametrize("version, num_ranks", [(1, 1), (2, 3)])
def test_a_golden_checkpoint_is_read_bit_for_bit(version: int, num_ranks: int) -> None:
    checkpoint = load(newest(GOLDEN / f"checkpoint-{version}"))
    assert (checkpoint.step, checkpoint.num_ranks) == (7, num_ranks)
    assert_same(take_rows(unpack_groups(checkpoint), like=None), expected())
    position = read_position(checkpoint)
    assert (position.step, position.evaluated_step, position.images) == (7, 5, 70)
    assert position.best_score == 0.1 + 0.2
    assert checkpoint.state["data"] == {"num_images": 70}

"""The bytes that `manyface plan` says a rank passes in are those that heads on ranks count."""

from typing import Any

import pytest
import torch
from processes import on_ranks
from small_recipe import recipe

from manyface.heads import CenterHead
from manyface.plan.gpus import Cluster
from manyface.plan.traffic import BACKBONE_GRADIENTS, STOP_AND_SAVE, collectives
from manyface.train.build_model import build_head
from manyface.train.copies import STATISTICS

IDENTITIES, BATCH, DIM = 300, 8, 16  # as the small recipe has them


def sent(head: dict[str, Any]) -> dict[str, int]:
    built = build_head(recipe(**head), IDENTITIES, device=torch.device("cpu"))
    assert isinstance(built, CenterHead)
    embeddings = torch.randn(BATCH, DIM, requires_grad=True)
    built(embeddings, torch.arange(BATCH)).backward()
    built.step(0.1)
    return dict(built.ranks.sent)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    "head",
    [
        {},
        {"sample_rate": 0.1},
        {"margin": "adaface"},
        {"margin": "magface"},
        {"negatives": "curricular"},
        {"negatives": "mv", "scale": 16.0},
        {"negatives": "interclass_remove", "label_smoothing": 0.1},
        {"label_smoothing": 0.1, "sub_centers": 2},
        {"scale": 200.0},
    ],
    ids=str,
)
def test_planned_bytes_are_counted_bytes(head: dict[str, Any], size: int) -> None:
    planned = collectives(
        recipe(**head),
        Cluster("h100", size),
        active=IDENTITIES,
        gradients=0,
        statistics=0,
        net_seconds=0.0,
        head_seconds=0.0,
    )
    by_name = {each.name: each.passed * each.calls for each in planned}
    for of_the_trainer in (BACKBONE_GRADIENTS, STATISTICS, STOP_AND_SAVE):
        by_name.pop(of_the_trainer, None)
    for counted in on_ranks(sent, size, head):
        assert counted == by_name

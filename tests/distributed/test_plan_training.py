"""What a whole training on ranks says is what `manyface plan` says it says."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import on_ranks
from torch import Tensor

from manyface.config import Config, parse_config
from manyface.observe.progress import SilentProgress
from manyface.parallel import Ranks
from manyface.plan import Cluster, plan_for_gpus
from manyface.plan.traffic import BACKBONE_GRADIENTS
from manyface.train import train

STEPS = 6
TINY = [
    "data.image_size=32",
    "data.synthetic.num_identities=24",
    "data.synthetic.images_per_identity=3",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "head.scale=16",
    f"schedule.steps={STEPS}",
    "train.batch_size=8",
    "train.checkpoint_minutes=0",
    "evaluation.every_epochs=0",
    "evaluation.num_pairs=20",
    "evaluation.num_identities=20",
    "evaluation.folds=2",
    "run.precision=fp32",
    "run.device=cpu",
]

BOTH = ("pool.identity_share=0.5", "pool.features=2")  # loaders, and slots of two


def counted(words: list[str], folder: Path) -> dict[str, int]:
    """Bytes of all collectives of a run, by name."""
    sent: Counter[str] = Counter()

    def count(self: Ranks, values: Tensor, name: str) -> None:
        sent[name] += values.nbytes

    Ranks._count = count  # type: ignore[method-assign]
    train(recipe(words, folder), progress=lambda name, *, num_steps: SilentProgress())
    return dict(sent)


def recipe(words: list[str], folder: Path) -> Config:
    return parse_config("", [*TINY, *words, f"run.directory={folder}"])


@pytest.mark.parametrize(
    "words",
    [
        ["head.sample_rate=0.4"],
        ["head.label_smoothing=0.1", "optimizer.accumulation=2"],
        ["head.margin=adaface", "train.batch_size=9"],
        ["head.method=f2c", "train.batch_size=12", "pool.slots=9"],
        ["head.method=f2c", "train.batch_size=12", "pool.slots=9", *BOTH],
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [2, 3])
def test_a_training_sends_what_is_planned(words: list[str], size: int, tmp_path: Path) -> None:
    config = recipe(words, tmp_path)
    outside = config.head.method == "f2c" and config.pool.identity_share < 1
    planned = plan_for_gpus(config, identities=24, cluster=Cluster("h100", size)).collectives
    found: list[dict[str, Any]] = on_ranks(counted, size, words, tmp_path)
    for each in planned:
        if each.name in (BACKBONE_GRADIENTS, "stop and save"):  # DDP's; also before the end
            continue
        uneven = config.train.batch_size % size != 0 and each.kind == "all-reduce"
        at_most = uneven or (outside and each.name in ("sums", "hardest cosines"))
        for sent in found:
            told, said = STEPS * each.passed * each.calls, sent[each.name]
            assert 0 < said <= told if at_most else said == told, each.name
    (stop,) = (each for each in planned if each.name == "stop and save")
    assert {sent["stop and save"] for sent in found} == {(STEPS + 1) * stop.passed}
    in_steps = {each.name for each in planned}
    assert sum(n for name, n in found[0].items() if name not in in_steps) < 20_000, found[0]

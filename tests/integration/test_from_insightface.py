"""A run that starts from what insightface's trainer left: backbone and shards of class centers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from manyface.backbones import create_backbone
from manyface.cli.program import main
from manyface.config import Config, parse_config
from manyface.heads import CenterHead
from manyface.train.build import build_training

IDENTITIES, DIM = 11, 16
TINY = [
    "data.image_size=32",
    f"data.synthetic.num_identities={IDENTITIES}",
    "data.synthetic.images_per_identity=3",
    "backbone.name=tiny",
    f"backbone.embedding_size={DIM}",
    "train.batch_size=8",
    "schedule.steps=2",
    "evaluation.num_pairs=40",
    "evaluation.num_identities=40",
    "evaluation.folds=2",
    "run.precision=fp32",
]


def left_behind(folder: Path, ranks: int, *, prefix: str = "") -> tuple[dict[str, Tensor], Tensor]:
    """model.pt and checkpoint_gpu_*.pt as train_v2.py writes them."""
    net = create_backbone("tiny", embedding_size=DIM, image_size=32, seed=77).state_dict()
    table = torch.randn(IDENTITIES, DIM, generator=torch.Generator().manual_seed(4)) * 0.3
    torch.save({prefix + name: value for name, value in net.items()}, folder / "model.pt")
    first = 0
    for rank in range(ranks):
        last = first + IDENTITIES // ranks + (rank < IDENTITIES % ranks)
        content = {
            "epoch": 1,
            "global_step": 9,
            "state_dict_backbone": net,
            "state_dict_softmax_fc": {"weight": table[first:last].clone()},
        }
        torch.save(content, folder / f"checkpoint_gpu_{rank}.pt")
        first = last
    assert first == IDENTITIES
    return net, table


def recipe(folder: Path, *overrides: str) -> Config:
    weights = [f"backbone.weights={folder / 'model.pt'}", f"head.weights={folder}"]
    return parse_config("", [*TINY, *weights, *overrides])


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_backbone_and_every_class_center(tmp_path: Path, ranks: int, prefix: str) -> None:
    net, table = left_behind(tmp_path, ranks, prefix=prefix)
    method = build_training(recipe(tmp_path), warn=print).method
    head = method.head
    assert isinstance(head, CenterHead)
    assert torch.equal(head.class_centers(torch.arange(IDENTITIES)), table)
    assert not head.centers.velocity.any()
    for name, value in method.net.state_dict().items():
        assert torch.equal(value, net[name]), name


@pytest.mark.parametrize(
    "overrides",
    [
        ["head.dtype=bfloat16", "head.sample_rate=0.5"],
        ["head.optimizer=adamw"],
        ["head.placement=host"],
        ["head.placement=file", "head.placement_folder={folder}/rows"],
    ],
)
def test_any_head_with_centers(tmp_path: Path, overrides: list[str]) -> None:
    _, table = left_behind(tmp_path, 3)
    given = [override.format(folder=tmp_path) for override in overrides]
    head = build_training(recipe(tmp_path, *given), warn=print).method.head
    found = head.class_centers(torch.arange(IDENTITIES))
    assert torch.equal(found, table.to(found.dtype))


def train(folder: Path, *words: str) -> int:
    path = folder / "recipe.toml"
    path.write_text(recipe(folder, f"run.directory={folder}/runs").to_toml())
    return main(["train", str(path), "--quiet", *words])


def test_a_run_that_starts_from_them_goes_on_without(tmp_path: Path) -> None:
    left_behind(tmp_path, 3)
    assert train(tmp_path) == 0
    for path in tmp_path.glob("checkpoint_gpu_*.pt"):
        path.unlink()
    assert train(tmp_path, "--resume", "--set", "head.weights=") == 0  # its own checkpoint has them


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["data.synthetic.num_identities=12"], "expected 12 class centers"),
        (["backbone.embedding_size=8", "backbone.weights="], "expected centers of length 8"),
        (["head.sub_centers=2"], "expected a head of one center per class, got 2"),
        (["head.weights=nowhere"], "no class centers at nowhere"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    left_behind(tmp_path, 2)
    words = [word for override in overrides for word in ("--set", override)]
    assert train(tmp_path, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: head.weights: {message}")


def test_methods_without_centers_refuse_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--set", "head.method=f2c", "--set", "head.weights=folder"]) == 2
    assert "weights is of class centers" in capsys.readouterr().err

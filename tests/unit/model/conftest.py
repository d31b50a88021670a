"""A model without a training, a run that was trained, and faces for both."""

from pathlib import Path

import pytest
import torch
from random_model import SIZE, make_model
from tiny_recipe import TINY
from torch import Tensor

from manyface.config import parse_config
from manyface.model import FaceModel
from manyface.train.run import train


@pytest.fixture
def model() -> FaceModel:
    return make_model()


@pytest.fixture
def faces() -> Tensor:
    """uint8 [5, S, S, 3]."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps with checkpoints of steps 4 to 8, evaluated at its end; not changed."""
    folder = tmp_path_factory.mktemp("runs")
    more = ["train.keep=9", "evaluation.num_pairs=80", "train.ema=0.9"]
    train(parse_config("", [*TINY, *more, f"run.directory={folder}", "run.name=tiny"]))
    return folder / "tiny"

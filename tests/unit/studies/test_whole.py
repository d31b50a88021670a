"""A folder of studies has one writer."""

from pathlib import Path

import pytest

from manyface.base.errors import CheckpointError
from manyface.checkpoint import run_lock
from manyface.studies.scales import find_scale
from manyface.studies.whole import Folder, measure_missing, train_missing


def ignored(*args: object) -> None:
    """Nobody is told."""


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path, find_scale("tiny"), None)
    with run_lock(tmp_path):
        with pytest.raises(CheckpointError, match="in use by another process"):
            train_missing([], folder, at_once=1, begins=ignored, told=ignored)
        with pytest.raises(CheckpointError, match="in use by another process"):
            measure_missing(folder, checkout=None, report=ignored)
    train_missing([], folder, at_once=1, begins=ignored, told=ignored)

"""A folder of studies: one writer; claims of all studies; photos that a scale asks for."""

import json
from pathlib import Path

import pytest

from manyface.base.errors import CheckpointError
from manyface.checkpoint import run_lock
from manyface.cli import main
from manyface.studies.catalog import studies_of
from manyface.studies.jobs import jobs_of_study
from manyface.studies.ledger import VERSION
from manyface.studies.scales import find_scale
from manyface.studies.whole import Folder, measure_missing, train_missing, write_pages


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


def test_claims_are_of_all_that_is_finished(tmp_path: Path) -> None:
    folder = Folder(tmp_path, find_scale("tiny"), None)
    studies = studies_of(folder.scale)
    entry = {"verification_accuracy": 1.0, "looks": {}, "num_pairs": 40, "correct": "ff" * 5,
             "tar_at_far": {}, "device": "cpu", "precision": "fp32", "commit": "0"}  # fmt: skip
    jobs = [job for name in ("rate", "tail") for job in jobs_of_study(studies[name], folder.scale)]
    content = {"version": VERSION, "runs": {job.digest: entry for job in jobs}}
    (tmp_path / "results.json").write_text(json.dumps(content), "utf-8")
    write_pages([studies["rate"]], folder, with_cost=False)
    claims = (tmp_path / "claims.md").read_text("utf-8").splitlines()
    (line,) = [each for each in claims if "sampling helps with a long tail" in each]
    assert "+0.0 [" in line
    assert not (tmp_path / "tail.md").exists()


def test_a_scale_of_photos_asks_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "rate", "--scale", "paper", "-d", str(tmp_path)]) == 2
    assert "give --data" in capsys.readouterr().err

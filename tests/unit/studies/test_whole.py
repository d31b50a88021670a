"""A folder of studies: one writer; claims of all studies; photos that a scale asks for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from manyface.base.errors import CheckpointError
from manyface.checkpoint import run_lock
from manyface.cli import main
from manyface.studies.catalog import studies_of
from manyface.studies.jobs import jobs_of_study
from manyface.studies.ledger import VERSION
from manyface.studies.photos import has_photos
from manyface.studies.scales import find_scale
from manyface.studies.whole import Folder, _command, measure_missing, train_missing, write_pages


def ignored(*args: object) -> None:
    """Nobody is told."""


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path, find_scale("tiny"), None)
    with run_lock(tmp_path):
        with pytest.raises(CheckpointError, match=r"in use by another process.* with -d"):
            train_missing([], folder, at_once=1, begins=ignored, told=ignored)
        with pytest.raises(CheckpointError, match="in use by another process"):
            measure_missing(folder, report=ignored)
    train_missing([], folder, at_once=1, begins=ignored, told=ignored)


def test_claims_are_of_all_that_is_finished(tmp_path: Path) -> None:
    folder = Folder(tmp_path, find_scale("tiny"), None)
    studies = studies_of(folder.scale)
    entry = {"cell": "", "seed": 0, "steps": 8, "batch_size": 16, "num_identities": 200,
             "verification_accuracy": 1.0, "looks": {}, "num_pairs": 40, "correct": "ff" * 5,
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
    assert "give --data, the folder with wf12m, glint360k" in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 2) -> str:
    """What is said where nothing may be written."""
    assert main(["reproduce", *map(str, words)]) == code
    return capsys.readouterr().err


def test_data_that_nothing_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "rate", "--scale", "tiny", "--data", tmp_path, "-d", tmp_path / "new")
    assert "the scale tiny has no photos to train on" in said
    assert not (tmp_path / "new").exists()


def test_sets_that_are_there_and_those_that_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("pool", "--scale", "paper", "--data", tmp_path, "-d", tmp_path / "new")
    said = refused(capsys, *words)
    assert f"--data {tmp_path} has none of them: expected a folder with ms1mv3, glint360k" in said
    (tmp_path / "ms1mv3").mkdir()
    assert main(["reproduce", *map(str, words)]) == 1
    found = capsys.readouterr()
    assert "ms1mv3; missing, so that their tables are left out: glint360k\n" in found.out
    assert "photos for the tables of ms1mv3: data.path: no images in" in found.err
    assert "with cfp_fp.bin beside them" in found.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("study", ["rate", "conflict", "cost"])
def test_photos_are_looked_at_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], study: str
) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    said = refused(capsys, study, "--data", tmp_path / "bad.tar", "-d", tmp_path / "new", code=1)
    assert "photos for the tables of lfw: data.path" in said
    assert "lfw-lists/peopleDevTrain.txt and lfw-lists/pairsDevTest.txt beside them" in said
    assert not (tmp_path / "new").exists()


def test_a_checkout_is_looked_at_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--scale", "tiny", "--checkout", tmp_path / "none", "-d", tmp_path / "new")
    assert f"--checkout {tmp_path / 'none'}: expected" in refused(capsys, "cost", *words)
    assert "for the study `cost`" in refused(capsys, "rate", *words)
    assert not (tmp_path / "new").exists()


def test_a_place_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        said = refused(capsys, "rate", "--scale", "tiny", "-d", tmp_path / place)
        assert f"-d: {tmp_path / 'file'} is no folder" in said
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "runs").touch()
    assert "runs is no folder" in refused(capsys, "rate", "--scale", "tiny", "-d", tmp_path)


def test_pages_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("rate", "--scale", "tiny", "--only-pages", "-d", tmp_path / "typo")
    said = refused(capsys, *words, code=1)
    assert f"nothing is finished in {tmp_path / 'typo' / 'tiny'}" in said
    assert not (tmp_path / "typo").exists()


def test_damaged_costs_end_a_study_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "costs.json").write_text("[]", "utf-8")
    said = refused(capsys, "rate", "--scale", "tiny", "-d", tmp_path, code=1)
    assert "holds no costs of heads" in said
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["costs.json"]


def test_as_many_seeds_as_anybody_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "less than or equal to 100" in refused(capsys, "rate", "--seeds", "1000000")


def test_commands_can_be_copied() -> None:
    tiny = find_scale("tiny")
    usual, own = Folder(Path("runs/reproduce/tiny"), tiny, None), Path("my runs/tiny")
    assert _command("rate", usual) == "manyface reproduce rate --scale tiny"
    assert _command(
        "rate", Folder(own, replace(tiny, seeds=2), None), data=Path("../lfw 112.tar")
    ) == (
        "manyface reproduce rate --scale tiny --seeds 2 --data '../lfw 112.tar' "
        "--directory 'my runs'"
    )
    private = Folder(Path("/home/me/results/tiny"), tiny, None)
    assert _command("cost", private, checkout=Path("/home/me/insightface")) == (
        "manyface reproduce cost --scale tiny --checkout insightface --directory results"
    )


def test_data_are_in_the_commands_of_studies_with_photos() -> None:
    small = find_scale("small")
    with_photos = {s.name for s in studies_of(small).values() if has_photos(s, small)}
    assert "rate" in with_photos
    assert {"conflict", "tail"} & with_photos == set()

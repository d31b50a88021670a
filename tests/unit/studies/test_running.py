"""Studies by the command line at the tiny scale: pages, going on, shared runs, what is refused."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manyface.cli import main
from manyface.cli.reproduce import NAMES
from manyface.studies.catalog import studies_of
from manyface.studies.jobs import jobs_of_study
from manyface.studies.scales import find_scale

pytestmark = pytest.mark.slow
TINY = find_scale("tiny")


def reproduce(folder: Path, *words: str) -> int:
    return main(["reproduce", *words, "--scale", "tiny", "-d", str(folder)])


def results(folder: Path) -> dict[str, dict[str, object]]:
    found = json.loads((folder / "tiny" / "results.json").read_text("utf-8"))
    runs: dict[str, dict[str, object]] = found["runs"]
    return runs


@pytest.mark.timeout(900)
def test_all_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(tmp_path, "all") == 0
    assert "runs to train" in capsys.readouterr().out
    runs = results(tmp_path)
    for name in NAMES:
        folder = tmp_path / "tiny"
        assert "| --- |" in (folder / f"{name}.md").read_text("utf-8")
        assert "<svg" in (folder / f"{name}-1.svg").read_text("utf-8")
        assert "manyface reproduce" in (folder / f"{name}.html").read_text("utf-8")
    tail = [run for run in runs.values() if run["looks"].get("updates")]  # type: ignore[attr-defined]
    assert tail
    assert not list(tmp_path.glob("tiny/runs/*/checkpoints"))
    before = (tmp_path / "tiny" / "results.json").read_text("utf-8")
    assert reproduce(tmp_path, "all") == 0
    assert "to train" not in capsys.readouterr().out
    assert (tmp_path / "tiny" / "results.json").read_text("utf-8") == before


def test_a_broken_ledger_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny" / "results.json"
    path.parent.mkdir()
    path.write_text("{", "utf-8")
    assert reproduce(tmp_path, "rate") == 1
    assert "no results of studies" in capsys.readouterr().err
    assert path.read_text("utf-8") == "{"


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(tmp_path, "rates") == 2
    assert "there are: all, rate" in capsys.readouterr().err
    assert main(["reproduce", "rate", "--scale", "huge", "-d", str(tmp_path)]) == 2
    assert "tiny, small or paper" in capsys.readouterr().err
    assert reproduce(tmp_path, "rate", "--data", str(tmp_path / "none")) == 2
    assert "no such file" in capsys.readouterr().err


def begun(study: str, folder: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "manyface", "reproduce", study, "--scale", "tiny", "-d"]
    words.append(str(folder))
    pipe = subprocess.PIPE
    return subprocess.Popen(words, text=True, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_has_the_runs_save_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    with begun("rate", tmp_path) as process:
        assert process.stdout is not None
        assert "runs to train" in process.stdout.readline()
        assert "[1 of" in process.stdout.readline()
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == 128 + number
    how = "Ctrl-C" if number == signal.SIGINT else number.name
    assert f"stopped by {how}: what is finished is kept, the same command goes on" in said
    done = len(results(tmp_path))
    commands = [read_or_empty(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in commands if str(tmp_path) in command]
    assert reproduce(tmp_path, "rate") == 0
    assert len(results(tmp_path)) > done >= 1


def test_a_signal_while_costs_are_measured(tmp_path: Path) -> None:
    with begun("cost", tmp_path) as process:
        assert process.stdout is not None
        assert "full FC at 10,000" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in said


def test_studies_that_share_cells_train_them_once(tmp_path: Path) -> None:
    """`rate` looks at more than `conflict`, which comes first."""
    assert reproduce(tmp_path, "conflict") == 0
    before = results(tmp_path)
    assert reproduce(tmp_path, "rate") == 0
    after = results(tmp_path)
    shared = [job.digest for job in jobs_of_study(studies_of(TINY)["rate"], TINY)]
    shared = [digest for digest in shared if digest in before]
    assert shared
    for digest in shared:
        assert after[digest] == before[digest]
        assert "cosines" in after[digest]["looks"]  # type: ignore[operator]


def read_or_empty(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

"""Runs as processes: what they are called, how long they take, and how they end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manyface.base.errors import CheckpointError
from manyface.base.orphans import ending_with_us
from manyface.checkpoint import run_lock
from manyface.studies import running
from manyface.studies.cells import Cell, Table
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.ledger import Ledger
from manyface.studies.running import (
    Finished,
    RunFailed,
    Trainings,
    images_of,
    names_of,
    run_all,
    time_left,
)
from manyface.studies.scales import find_scale

TINY = find_scale("tiny")
TABLE = Table("Rates", "full FC", (Cell("full FC"), Cell("tenth", ("head.sample_rate=0.1",))))


def jobs() -> list[Job]:
    return jobs_of(TABLE, TINY)


def test_a_run_is_called_by_its_table_where_its_cell_says_too_little() -> None:
    noisy = Table("Noisy", "full FC", (Cell("full FC", ("data.noise.flip=0.2",)),))
    every = [*jobs(), *jobs_of(noisy, TINY)]
    titles = {
        job.digest: title for job, title in zip(every, ("Rates", "Rates", "Noisy"), strict=True)
    }
    names = names_of(every, titles)
    assert [names[job.digest] for job in every] == [
        "Rates: full FC, seed 0", "tenth, seed 0", "Noisy: full FC, seed 0",
    ]  # fmt: skip


def test_time_left_is_of_runs_that_were_trained() -> None:
    assert time_left([], [100.0], 2) is None
    assert time_left([(10.0, 100.0), (20.0, 200.0)], [100.0] * 4, 2) == 20
    assert time_left([(10.0, 100.0)], [100.0, 400.0], 2) == 40  # one run is not shared out
    assert time_left([(10.0, 100.0)], [], 2) == 0


def test_longer_runs_count_for_more() -> None:
    changes = [("schedule.steps=7",), ("schedule.steps=70",)]
    cells = tuple(Cell(str(number), each) for number, each in enumerate(changes))
    few, many = images_of(jobs_of(Table("Lengths", "0", cells), TINY)).values()
    assert many == 10 * few


def test_runs_that_had_begun_say_nothing_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Finished] = []
    seconds = iter([(), (8.0,)])
    monkeypatch.setattr(running, "_run", lambda *_: running._Trained(0.5, next(seconds)))
    names = {job.digest: job.cell.name for job in jobs()}
    ledger = Ledger(tmp_path / "results.json")
    run_all(jobs(), ledger, runs=tmp_path, at_once=1, names=names, told=found.append)
    assert [each.left for each in found] == [None, 0]
    assert {each.name for each in found} == {"full FC", "tenth"}


def test_a_run_that_another_process_trains(tmp_path: Path) -> None:
    job = jobs()[0]
    with (
        run_lock(tmp_path / job.name),
        pytest.raises(CheckpointError, match=r"in use by another process .*pid.* with -d"),
    ):
        running.train(job, tmp_path, Trainings())


class Dead(Trainings):
    """Runs that end at once."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def run(self, command: object) -> int:
        return self.code


@pytest.mark.parametrize(("code", "said"), [(1, "exit code 1"), (-9, "SIGKILL")])
def test_why_a_run_failed_is_looked_up_where_it_is(tmp_path: Path, code: int, said: str) -> None:
    job = jobs()[0]
    with pytest.raises(RunFailed, match=f"ended with {said}: what it said is above; "):
        running.train(job, tmp_path, Dead(code))
    (tmp_path / job.name).mkdir()
    (tmp_path / job.name / "events.jsonl").touch()
    with pytest.raises(RunFailed, match=r"above and in .*events\.jsonl"):
        running.train(job, tmp_path, Dead(code))


def test_a_run_whose_folder_goes_is_trained_anew_by_the_same_command(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results.json")
    with pytest.raises(RunFailed, match=r"no such directory.*trains it anew"):
        running._run(jobs()[0], ledger, tmp_path, Dead(0))


PARENT = """
import subprocess, sys
from manyface.base.orphans import ending_with_us
subprocess.Popen(ending_with_us([sys.executable, "-c", sys.argv[1]]), start_new_session=True).wait()
"""
CHILD = """
import signal, sys, time
from pathlib import Path
def end(number, frame):
    Path({path!r}).touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux to say so")
def test_a_run_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    words = [sys.executable, "-c", PARENT, CHILD.format(path=str(told))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGKILL)
    for _ in range(200):
        if told.exists():
            return
        time.sleep(0.05)
    raise AssertionError("it goes on")


def test_a_wrapped_command_is_the_command() -> None:
    words = ending_with_us([sys.executable, "-c", "import sys; sys.exit(len(sys.argv))", "a b"])
    assert subprocess.run(words).returncode == 2

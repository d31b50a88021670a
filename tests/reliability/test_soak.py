"""R14: a run that lives through a fault every so often, for as long as SOAK_MINUTES say.

Nobody helps it: a launcher that ended is begun again with the same command, as a scheduler would.
"""

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

import pytest
from launching import Attempt
from runs import Tiny

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
FAULT_MINUTES = float(os.environ.get("SOAK_FAULT_MINUTES", "10"))
FAULTS = ("kill rank 0", "kill rank 1", "kill launcher", "kill tree", "stop", "hang")
MIB = 2**20


@dataclass
class Watch:
    """What is seen once a second: useful seconds are those in which the run came further."""

    highest: int = 0
    useful: int = 0
    seconds: int = 0
    of_rank: list[tuple[float, float, int]] = field(default_factory=list)  # hours, MiB, open files
    slopes: list[float] = field(default_factory=list)  # MiB per hour of each stretch without fault
    more_files: list[int] = field(default_factory=list)  # in the last third than in the second

    def look(self, attempt: Attempt, tiny: Tiny) -> None:
        """Once."""
        self.seconds += 1
        step = last_step(tiny)
        self.useful += step > self.highest
        self.highest = max(self.highest, step)
        pid = attempt.rank_pid(0)
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            return
        if step >= self.highest:
            mib = pages * os.sysconf("SC_PAGESIZE") / MIB
            self.of_rank.append((time.monotonic() / 3600, mib, files))

    def end_stretch(self) -> None:
        """After a fault; the first third of a stretch is spent warming up."""
        third = len(self.of_rank) // 3
        if third > 10:
            hours, mib, files = zip(*self.of_rank[third:], strict=True)
            self.slopes.append(linear_regression(hours, mib).slope)
            self.more_files.append(max(files[third:]) - max(files[:third]))
        self.of_rank.clear()


def last_step(tiny: Tiny) -> int:
    """Of the last line about a step in the log; the log may be long."""
    path = tiny.directory / "events.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 4000, 0))
        lines = file.read().split(b'"kind": "step"')
    return int(lines[-1].split(b'"step": ')[1].split(b",")[0]) if len(lines) > 1 else 0


def strike(attempt: Attempt, fault: str) -> None:
    """SIGKILL, SIGTERM to the launcher, or SIGSTOP of a rank."""
    if fault == "kill tree":
        attempt.kill_tree()
    elif fault == "stop":
        attempt.kill(attempt.agent, signal.SIGTERM)
    elif fault == "hang":
        attempt.kill(attempt.rank_pid(1), signal.SIGSTOP)
    else:
        pid = attempt.agent if fault == "kill launcher" else attempt.rank_pid(int(fault[-1]))
        attempt.kill(pid)


@pytest.mark.soak
@pytest.mark.timeout(int(MINUTES * 60 + 600))
def test_a_run_lives_through_a_fault_every_so_often(tmp_path: Path) -> None:
    more = ("run.timeout_seconds=10", "train.log_every=10", "train.compare_every=100")
    tiny = Tiny(tmp_path / "tiny", steps=10**8, every=100, evaluate=0, more=more)
    draw, watch, faults, attempts = random.Random(0), Watch(), 0, 0
    shared = len(list(Path("/dev/shm").iterdir()))  # noqa: S108
    until, next_fault = time.monotonic() + MINUTES * 60, time.monotonic() + FAULT_MINUTES * 60
    while time.monotonic() < until:
        attempts += 1
        with Attempt(tiny.words(), tmp_path / f"attempt-{attempts}", restarts=100) as attempt:
            while attempt.code is None and time.monotonic() < until:
                time.sleep(1)
                watch.look(attempt, tiny)
                if time.monotonic() > next_fault:
                    next_fault += FAULT_MINUTES * 60
                    faults += 1
                    watch.end_stretch()
                    strike(attempt, draw.choice(FAULTS))
            assert not (attempt.code is not None and attempt.orphans())
        assert not tiny.check()
    watch.end_stretch()
    goodput = watch.useful / watch.seconds
    print(
        f"FIGURE soak: {MINUTES:g} minutes, {faults} faults, {attempts} launches, "
        f"{watch.highest} steps; goodput {goodput:.0%}, more files {watch.more_files}, "
        f"MiB per hour {[round(slope, 1) for slope in watch.slopes]}"
    )
    assert watch.highest > 0
    assert len(list(Path("/dev/shm").iterdir())) <= shared  # noqa: S108
    assert goodput >= 1 - 1 / FAULT_MINUTES  # a fault costs a minute at most
    assert max(watch.more_files, default=0) <= 2

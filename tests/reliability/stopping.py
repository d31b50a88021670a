"""Runs that are told to stop, at any moment and by any signal, and must save first (R5)."""

import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from faults import MOMENTS, PHASES
from launching import Attempt
from runs import Tiny

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SECONDS = 20  # as is promised of two gigabytes
# SIGUSR1 and SIGHUP before a run listens end it at once, as those of any program.
VICTIMS = ("launcher", "rank 0", "rank 1")


@dataclass
class Stops:
    """What a campaign counts: stops by moment, those that left nothing behind, seconds they took.

    Attributes:
        saved: whose newest checkpoint is of the last step that was made.
        nothing: that came before anything was trained.
    """

    moments: Counter[str] = field(default_factory=Counter)
    saved: int = 0
    nothing: int = 0
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Stops in all."""
        return len(self.seconds)

    def describe(self) -> str:
        """One line."""
        longest = max(self.seconds, default=0.0)
        return (
            f"{self.total} stops: {self.saved} saved, {self.nothing} had nothing to save, "
            f"{len(self.problems)} wrong; the longest took {longest:.1f} s; {dict(self.moments)}"
        )


def stop_runs(folder: Path, *, stops: int, seed: int = 0) -> Stops:
    """Stop runs in `folder` so many times; each goes on where the one before stopped."""
    draw, tally, attempts = random.Random(seed), Stops(), 0
    while tally.total < stops:
        attempts += 1
        tiny = Tiny(folder / "tiny", steps=60, evaluate=7)
        moment = draw.choice([*MOMENTS, "step", *PHASES, "any"])
        fault = {"kind": "hold", "rank": 0, "at": moment, "visit": draw.randint(1, 3)}
        if moment == "building":
            fault["visit"] = 1
        settings = draw.choice([(), ("train.staging_gib=0",)])
        faults = [] if moment == "any" else [fault]
        place = folder / f"attempt-{attempts}"
        with Attempt(tiny.words(*settings), place, faults=faults) as attempt:
            if reached(attempt, moment, draw.uniform(0.5, 5)):
                stop(attempt, tiny, tally, moment, draw.choice(SIGNALS), draw.choice(VICTIMS))
            elif attempt.ended(60) != 0:
                tally.problems.append(f"{moment}: ended by itself: {attempt.log[-1500:]}")
        if tiny.is_done:
            shutil.rmtree(tiny.folder)
    return tally


def reached(attempt: Attempt, moment: str, seconds: float) -> bool:
    """Whether the attempt came to the moment, which for "any" is so long after its start."""
    if moment == "any":
        until = attempt.started + seconds
        return attempt.wait_for(lambda: time.monotonic() >= until, 60) and attempt.code is None
    return attempt.wait_for((attempt.folder / "struck").exists, 60)


def stop(
    attempt: Attempt, tiny: Tiny, tally: Stops, moment: str, number: signal.Signals, victim: str
) -> None:
    """Send the signal, and count what comes of it."""
    pid = attempt.agent if victim == "launcher" else attempt.rank_pid(int(victim[-1]))
    attempt.kill(pid, number)
    sent = time.monotonic()
    time.sleep(0.05)
    (attempt.folder / "release").touch()
    what = f"{number.name} to {victim} at {moment}"
    # A forked rank whose run is complete waits for a word of a launcher that no longer listens.
    if not attempt.wait_for(lambda: attempt.code is not None or tiny.is_done, 40):
        tally.problems.append(f"{what}: has not ended: {attempt.log[-1500:]}")
    tally.seconds.append(time.monotonic() - sent)
    if tally.seconds[-1] > SECONDS:
        tally.problems.append(f"{what}: took {tally.seconds[-1]:.0f} s: {attempt.log[-3000:]}")
    tally.moments[moment] += 1
    if tiny.is_done:
        attempt.kill_tree()
    problems = [*tiny.check(), *(f"orphan {pid}" for pid in attempt.orphans())]
    trained, saved = max(tiny.last_step(), 0), max(tiny.newest, 0)
    if trained == saved:
        tally.saved += saved > 0
        tally.nothing += saved == 0
    else:
        problems.append(f"trained {trained} steps, saved {saved}: {attempt.log[-1500:]}")
    tally.problems += [f"{what}: {problem}" for problem in problems]

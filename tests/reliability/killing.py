"""Runs that are killed with -9 again and again, and what must hold afterwards (R1).

A run goes on under `--resume-or-start` until it is done, killed at random moments or inside a phase
of a save; then the next one begins. With one number of ranks all its loss lines, those of killed
attempts too, and its end equal the run that nobody touched.
"""

import os
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import PHASES
from launching import Attempt
from runs import Tiny

VICTIMS = ("tree", "rank 0", "rank 1", "agent")
STARTS = (1.0, 5.0)  # of an attempt: seconds between which a random kill comes
ENDS = 60.0  # seconds that an attempt may take to end after one of its ranks was killed


@dataclass
class Tally:
    """What a campaign counts.

    Attributes:
        kills: by whom they hit.
        in_save: kills while a save was going on; by_phase: those aimed, by phase.
        lost: checkpoints that had been committed and are gone or do not verify.
        orphans: processes that lived 5 s after the launcher.
        most_lost_steps: updates made that had to be made again; how many intervals that is at most.
        slowest_end: seconds from the kill of a rank to the end of the launcher.
        runs: finished; unequal: whose losses or end differ from the untouched run.
    """

    kills: Counter[str] = field(default_factory=Counter)
    in_save: int = 0
    by_phase: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    orphans: int = 0
    most_lost_steps: int = 0
    lost_too_much: int = 0
    slowest_end: float = 0.0
    runs: int = 0
    unequal: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Kills in all."""
        return sum(self.kills.values())

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {"total": self.total, **vars(self)}


class Campaign:
    """Kills runs of `tiny` settings in `folder` until there were `kills`, then lets them finish.

    Args:
        folder: empty.
        kills: to make.
        ranks: of each attempt; several: a random one of them, and only checkpoints are compared.
        share_aimed: of kills inside a phase of a save.
        forked: how attempts begin (launching.py).
    """

    def __init__(
        self,
        folder: Path,
        *,
        kills: int,
        ranks: tuple[int, ...] = (2,),
        share_aimed: float = 0.6,
        seed: int = 0,
        steps: int = 120,
        forked: bool = True,
    ) -> None:
        self.tally = Tally()
        self._folder, self._kills, self._ranks = folder, kills, ranks
        self._share_aimed, self._steps, self._forked = share_aimed, steps, forked
        self._random = random.Random(seed)
        self._attempts = 0
        self._expected: dict[int, str] = {}
        self._digest = ""

    def run(self) -> Tally:
        """All of it."""
        if len(self._ranks) == 1:
            self._leave_alone(self._tiny("untouched"))
        while self.tally.total < self._kills:
            tiny = self._tiny(f"run-{self.tally.runs}")
            self._bring_to_end(tiny)
            shutil.rmtree(tiny.folder)
        return self.tally

    def _tiny(self, name: str) -> Tiny:
        return Tiny(self._folder / name, steps=self._steps)

    def _leave_alone(self, tiny: Tiny) -> None:
        with self._attempt(tiny, self._ranks[0]) as attempt:
            assert attempt.ended(300) == 0, attempt.log
        self._expected, self._digest = dict(tiny.losses()), tiny.digest()

    def _bring_to_end(self, tiny: Tiny) -> None:
        """Kill it until it is done, or there were enough kills; then let it finish."""
        while not tiny.is_done:
            kill = self.tally.total < self._kills
            ranks = self._random.choice(self._ranks)
            if kill and self._random.random() < self._share_aimed:
                self._kill_in_save(tiny, ranks)
            elif kill:
                self._kill_at_random(tiny, ranks)
            else:
                with self._attempt(tiny, ranks) as attempt:
                    if attempt.ended(300) != 0:
                        raise AssertionError(attempt.log[-3000:])
        self._compare(tiny)
        self.tally.runs += 1

    def _compare(self, tiny: Tiny) -> None:
        if sorted(step for step, _ in tiny.losses()) != list(range(1, self._steps + 1)):
            self._problem(f"{tiny.folder.name}: a step is missing or twice")
        if not self._expected:
            return
        differing = tiny.differing(self._expected)
        if differing or dict(tiny.losses()) != self._expected or tiny.digest() != self._digest:
            self.tally.unequal += 1
            self._problem(f"{tiny.folder.name}: {differing} loss lines differ, or the end does")

    def _attempt(self, tiny: Tiny, ranks: int, faults: tuple[dict[str, Any], ...] = ()) -> Attempt:
        self._attempts += 1
        # A copy written beside training, or training waits: the same bytes.
        settings = self._random.choice([(), ("train.staging_gib=0",)])
        folder = self._folder / f"attempt-{self._attempts}"
        return Attempt(
            tiny.words(*settings), folder, ranks=ranks, faults=faults, forked=self._forked
        )

    def _kill_at_random(self, tiny: Tiny, ranks: int) -> None:
        with self._attempt(tiny, ranks) as attempt:
            until = attempt.started + self._random.uniform(*STARTS)
            attempt.wait_for(lambda: time.monotonic() >= until, 60)
            self._strike(attempt, tiny, ranks)

    def _kill_in_save(self, tiny: Tiny, ranks: int) -> None:
        phase = self._random.choice(PHASES)
        rank = self._random.randrange(ranks) if phase in ("data", "sync") else 0
        visit = self._random.randint(1, 3)
        fault = {"kind": "hold", "rank": rank, "at": phase, "visit": visit}
        with self._attempt(tiny, ranks, (fault,)) as attempt:
            if attempt.wait_for((attempt.folder / "struck").exists, 60):
                self._strike(attempt, tiny, ranks, phase)
            elif attempt.code != 0:
                self._problem(f"ended by itself: {attempt.log[-1500:]}")

    def _strike(self, attempt: Attempt, tiny: Tiny, ranks: int, phase: str = "") -> None:
        """The kill, and all that must hold after it."""
        victim = self._random.choice(VICTIMS if ranks > 1 else ("tree", "agent"))
        pid = attempt.rank_pid(int(victim[-1])) if victim.startswith("rank") else attempt.agent
        if attempt.code is not None or pid is None:
            return  # it was faster, or has not begun
        alive = attempt.alive()  # takes so long that a save may begin meanwhile
        saving = bool(phase) or is_saving(tiny)
        if victim == "tree":
            attempt.kill_tree()
        elif pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        saving = saving or is_saving(tiny)
        (attempt.folder / "release").touch()
        self._count(victim, saving, phase)
        killed = time.monotonic()
        if attempt.ended(ENDS) is None:
            self._problem(f"{victim} killed, the launcher has not ended: {attempt.log[-1500:]}")
        self.tally.slowest_end = max(self.tally.slowest_end, time.monotonic() - killed)
        self._check(attempt, tiny, saving)

    def _count(self, victim: str, saving: bool, phase: str) -> None:
        self.tally.kills[victim] += 1
        self.tally.in_save += saving
        if phase:
            self.tally.by_phase[phase] += 1

    def _check(self, attempt: Attempt, tiny: Tiny, saving: bool) -> None:
        if orphans := attempt.orphans():
            self.tally.orphans += len(orphans)
            self._problem(f"orphans {orphans}")
        if wrong := tiny.check():
            self.tally.lost += len(wrong)
            self._problem("; ".join(wrong))
        lost = max(tiny.last_step() - max(tiny.newest, 0), 0)
        self.tally.most_lost_steps = max(self.tally.most_lost_steps, lost)
        # A save that goes on beside training is followed by up to an interval of it.
        if lost > tiny.every * (2 if saving else 1) + 1:
            self.tally.lost_too_much += 1
            self._problem(f"{lost} steps lost")

    def _problem(self, text: str) -> None:
        self.tally.problems.append(f"attempt {self._attempts}: {text}")


def is_saving(tiny: Tiny) -> bool:
    """Whether a checkpoint is being written, or was when all that wrote it were killed."""
    return any(tiny.checkpoints.glob(".tmp-*"))

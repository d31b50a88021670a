"""Training what a ledger lacks: several runs at once, each in a process of its own.

A run that was stopped goes on from its newest checkpoint. On CPUs each computes on one thread, so
as many run at once as there are cores, and what they learn does not hang on how many that is; with
GPUs one runs at a time, on all of them. Once a run has been judged and looked at, its checkpoints
are deleted.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from threading import Lock

import torch

from manyface.base.errors import ManyfaceError
from manyface.base.threads import usable_cores
from manyface.report.runs import read_run
from manyface.studies.jobs import Job
from manyface.studies.ledger import Ledger
from manyface.studies.looking import LOOKS

Told = Callable[[int, int, Job, float], None]  # done, in all, which, its accuracy
RECIPE = "recipe.toml"


class RunFailed(ManyfaceError):
    """A run of a study did not end well; its own words are above."""


def missing(jobs: Sequence[Job], ledger: Ledger) -> list[Job]:
    """The runs that the ledger lacks, one of each digest, in order."""
    wanted: dict[str, Job] = {}
    for job in jobs:
        known = wanted.get(job.digest)
        looks = tuple(dict.fromkeys((*(known.looks if known else ()), *job.looks)))
        wanted[job.digest] = replace(known or job, looks=looks)
    return [job for job in wanted.values() if not ledger.has(job)]


class Trainings:
    """The processes of runs under way; once stopped, none begins.

    A Ctrl-C of the terminal does not reach them: it and others are passed on once, as SIGTERM,
    for a second signal would end a run without saving.
    """

    def __init__(self) -> None:
        self._alive: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = Lock(), False

    def run(self, command: Sequence[str]) -> int:
        """Its exit code, when it has ended."""
        with self._lock:
            if self._stopped:
                return -signal.SIGTERM
            process = subprocess.Popen(command, start_new_session=True)  # noqa: S603
            self._alive.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._alive.discard(process)

    def stop(self) -> None:
        """Have all of them save and end."""
        with self._lock:
            self._stopped = True
            for process in self._alive:
                process.terminate()


def run_all(jobs: Sequence[Job], ledger: Ledger, *, runs: Path, at_once: int, told: Told) -> None:
    """Train and judge `jobs`, which the ledger lacks. When this ends early, by an error or by a
    signal, the runs under way save a checkpoint first.

    Raises:
        RunFailed: one of them failed.
    """
    trainings = Trainings()
    with ThreadPoolExecutor(at_once, thread_name_prefix="study") as pool:
        futures = {pool.submit(_run, job, ledger, runs, trainings): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                job = futures[future]
                told(done, len(jobs), job, future.result())
        finally:
            for future in futures:
                future.cancel()
            trainings.stop()


def _run(job: Job, ledger: Ledger, runs: Path, trainings: Trainings) -> float:
    """Train, judge, look; the accuracy."""
    directory = train(job, runs, trainings)
    run = read_run(directory)
    ledger.add(job, run, {look: LOOKS[look](directory) for look in job.looks})
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    return float(run.row["verification_accuracy"])


def train(job: Job, runs: Path, trainings: Trainings) -> Path:
    """The folder of the finished run of `job`; it goes on from where it stands."""
    directory = runs / job.name
    if (directory / "result.json").exists() and (directory / "checkpoints").exists():
        return directory
    recipe = runs / f"{job.name}.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(job.recipe, encoding="utf-8")
    command = [*_program(), "train", str(recipe), "--no-summary", "--quiet"]
    for override in (*job.overrides(), f"run.directory={runs}", f"run.name={job.name}"):
        command += ["--set", override]
    command += ["--resume"] if (directory / "checkpoints").exists() else ["--force"]
    if code := trainings.run(command):
        raise RunFailed(f"the run {directory} ended with exit code {code}; see its events.jsonl")
    return directory


def _program() -> list[str]:
    """manyface on this machine: on several GPUs a process for each."""
    gpus, launcher = torch.cuda.device_count(), ["-m", "torch.distributed.run", "--standalone"]
    several = [*launcher, f"--nproc-per-node={gpus}"] if gpus > 1 else []
    return [sys.executable, *several, "-m", "manyface"]


def runs_at_once() -> int:
    """As many as there are cores; one where there are GPUs, which it shares out."""
    return 1 if torch.cuda.is_available() else usable_cores()


class Clock:
    """Time left, from how long runs have taken since this was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def left(self, done: int, total: int) -> float:
        """Seconds until all are done, if the rest take as long."""
        return (time.monotonic() - self._begun) / done * (total - done)

"""Training what a ledger lacks: several runs at once, each in a process of its own.

A run that was stopped goes on from its newest checkpoint. On CPUs each computes on one thread, so
as many run at once as there are cores, and what they learn does not hang on how many that is; with
GPUs one runs at a time, on all of them. Once a run has been judged and looked at, its checkpoints
are deleted.
"""

import math
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import torch

from manyface.base.errors import DataError, ManyfaceError
from manyface.base.orphans import ending_with_us
from manyface.base.threads import usable_cores
from manyface.checkpoint import run_lock
from manyface.report.runs import read_run
from manyface.studies.jobs import Job
from manyface.studies.ledger import Ledger
from manyface.studies.looking import LOOKS

IN_USE = "take another folder with -d"  # what to do where another process is at work


@dataclass(frozen=True)
class Finished:
    """A run that has been trained and judged.

    Attributes:
        done, total: how many runs are, of how many.
        name: of its cell and seed, and of its table where others have these.
        accuracy: of verification.
        left: seconds until all are done; None where no run was trained from its beginning yet.
    """

    done: int
    total: int
    name: str
    accuracy: float
    left: float | None


Told = Callable[[Finished], None]


class RunFailed(ManyfaceError):
    """A run of a study did not end well; its own words are above."""


def missing(jobs: Iterable[Job], ledger: Ledger, *, others: Iterable[Job] = ()) -> list[Job]:
    """The runs that the ledger lacks, one of each digest, in order.

    Each has the looks of all `jobs` of its digest, and of the `others`, which may be asked for
    later, when what is looked at is gone.
    """
    asked: dict[str, Job] = {}
    for job in jobs:
        asked[job.digest] = _looking(asked.get(job.digest, job), job)
    found = {digest: job for digest, job in asked.items() if not ledger.has(job)}
    for job in others:
        if job.digest in found:
            found[job.digest] = _looking(found[job.digest], job)
    return list(found.values())


def _looking(job: Job, other: Job) -> Job:
    """`job` with the looks of both."""
    return replace(job, looks=tuple(dict.fromkeys((*job.looks, *other.looks))))


def names_of(jobs: Sequence[Job], titles: Mapping[str, str]) -> dict[str, str]:
    """Digest -> cell and seed, behind the title of the table where several runs have these."""
    short = {job.digest: f"{job.cell.name}, seed {job.seed}" for job in jobs}
    often = Counter(short.values())
    return {
        digest: name if often[name] == 1 else f"{titles[digest]}: {name}"
        for digest, name in short.items()
    }


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
            process = subprocess.Popen(  # noqa: S603  ourselves
                ending_with_us(command), start_new_session=True
            )
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


def run_all(
    jobs: Sequence[Job],
    ledger: Ledger,
    *,
    runs: Path,
    at_once: int,
    names: Mapping[str, str],
    told: Told,
) -> None:
    """Train and judge `jobs`, which the ledger lacks. When this ends early, by an error or by a
    signal, the runs under way save a checkpoint first.

    Args:
        names: digest -> what a run is called.

    Raises:
        RunFailed: one of them failed.
        CheckpointError: another process is at one of them.
    """
    trainings, whole, images = Trainings(), list[Whole](), images_of(jobs)
    with ThreadPoolExecutor(at_once, thread_name_prefix="study") as pool:
        futures = {pool.submit(_run, job, ledger, runs, trainings): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                digest, trained = futures[future].digest, future.result()
                whole += [(seconds, images[digest]) for seconds in trained.seconds]
                del images[digest]
                left = time_left(whole, list(images.values()), at_once)
                told(Finished(done, len(jobs), names[digest], trained.accuracy, left))
        finally:
            for future in futures:
                future.cancel()
            trainings.stop()


def images_of(jobs: Iterable[Job]) -> dict[str, float]:
    """Digest -> images that a run trains; of one that counts epochs, as many as others do."""
    counted = {
        job.digest: float(steps * job.config.train.batch_size)
        for job in jobs
        if (steps := job.config.schedule.steps)
    }
    others = statistics.fmean(counted.values()) if counted else 1.0
    return {job.digest: counted.get(job.digest, others) for job in jobs}


Whole = tuple[float, float]  # of a run trained from its beginning: its seconds and images


def time_left(whole: Sequence[Whole], left: Sequence[float], at_once: int) -> float | None:
    """Seconds for runs of so many images each, by those of runs trained from their beginning."""
    if not whole:
        return None
    seconds, images = (math.fsum(column) for column in zip(*whole, strict=True))
    return seconds / images * max(sum(left) / at_once, max(left, default=0.0))


@dataclass(frozen=True)
class _Trained:
    """Accuracy of a run, and the seconds that it took if it was trained from its beginning."""

    accuracy: float
    seconds: tuple[float, ...]


def _run(job: Job, ledger: Ledger, runs: Path, trainings: Trainings) -> _Trained:
    """Train, judge, look."""
    begun, has_begun = time.monotonic(), (runs / job.name / "checkpoints").exists()
    directory = train(job, runs, trainings)
    try:
        run = read_run(directory)
        ledger.add(job, run, {look: LOOKS[look](directory) for look in job.looks})
    except DataError as error:
        raise RunFailed(f"{error}; without its folder, the same command trains it anew") from error
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    seconds = () if has_begun else (time.monotonic() - begun,)
    return _Trained(ledger.runs[job.digest]["verification_accuracy"], seconds)


def train(job: Job, runs: Path, trainings: Trainings) -> Path:
    """The folder of the finished run of `job`; it goes on from where it stands."""
    directory = runs / job.name
    if directory.exists():
        with run_lock(directory, instead=IN_USE):
            pass  # nobody else trains it, such as what a killed process has left behind
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
        raise RunFailed(_why(directory, code))
    return directory


def _why(directory: Path, code: int) -> str:
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    events = directory / "events.jsonl"
    where = f" and in {events}" if events.exists() else ""
    return (
        f"the run {directory} ended with {how}: what it said is above{where}; mend that, then the "
        "same command goes on"
    )


def _program() -> list[str]:
    """manyface on this machine: on several GPUs a process for each."""
    gpus, launcher = torch.cuda.device_count(), ["-m", "torch.distributed.run", "--standalone"]
    several = [*launcher, f"--nproc-per-node={gpus}"] if gpus > 1 else []
    return [sys.executable, *several, "-m", "manyface"]


def runs_at_once() -> int:
    """As many as there are cores; one where there are GPUs, which it shares out."""
    return 1 if torch.cuda.is_available() else usable_cores()

"""A run under torchrun as a test has it: begun, watched, killed, with nothing left behind.

Two ways to begin one. `Attempt(forked=True)` forks the launcher from a server that has torch and
manyface loaded: the same elastic agent, rendezvous and ranks as torchrun's in a tenth of the time,
so that a thousand kills are possible. `forked=False` runs the program torchrun itself.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import synchronize
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from processes import PRELOADED
from rank import FAULTS, FOLDER, main

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
MARK = "MANYFACE_TEST_ATTEMPT"


@dataclass
class Attempt:
    """One launch of a run, in the block; whatever of it lives at its end is killed.

    Args:
        words: arguments of manyface.
        folder: for process ids, the log, and what faults leave; a new one for each attempt.
        ranks: processes.
        restarts: by the launcher, when a rank fails.
        patience: seconds that the launcher waits for ranks that it has told to end.
        faults: records for `faults.arm`.
        forked: see above.
        options: more for the program torchrun.
        environment: more variables.
        prefix: words before those of torchrun.
    """

    words: Sequence[str]
    folder: Path
    ranks: int = 2
    restarts: int = 0
    patience: int = 30
    faults: Sequence[dict[str, Any]] = ()
    forked: bool = True
    options: Sequence[str] = ("--standalone",)
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self._mark = uuid.uuid4().hex
        self._sessions: set[int] = set()
        variables = {
            FAULTS: json.dumps(list(self.faults)),
            FOLDER: str(self.folder),
            MARK: self._mark,
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        self._process = self._fork(variables) if self.forked else self._execute(variables)
        self.agent = self._process.pid
        self.started = time.monotonic()  # not before: the first fork waits until torch is loaded
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill_tree()
        self.ended(10)

    @property
    def log(self) -> str:
        """What launcher and ranks have printed."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def rank_pid(self, rank: int) -> int | None:
        """The newest process of a rank; None before it has begun."""
        with suppress(OSError, ValueError):
            return int((self.folder / f"rank-{rank}.pid").read_text())
        return None

    def alive(self) -> list[int]:
        """All processes of this attempt that live, whoever their parents are now."""
        self._sessions.add(self.agent)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self._is_ours(entry):
                found.append(int(entry.name))
        return found

    def kill(self, pid: int | None, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process of this attempt."""
        if pid is not None and pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_tree(self) -> None:
        """SIGKILL for all of it, launcher first."""
        for _ in range(3):  # it may be forking
            alive = self.alive()
            for pid in sorted(alive, key=lambda pid: pid != self.agent):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not alive:
                return

    def wait_for(self, condition: Callable[[], object], seconds: float) -> bool:
        """Whether `condition` came true before the launcher ended and in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            if self.code is not None:
                return bool(condition())
            time.sleep(0.01)
        return False

    def ended(self, seconds: float) -> int | None:
        """The launcher's exit code, when it has ended; None if it has not within `seconds`."""
        until = time.monotonic() + seconds
        while self.code is None and time.monotonic() < until:
            time.sleep(0.01)
        return self.code

    def orphans(self, seconds: float = 5.0) -> list[int]:
        """What still lives so long after the launcher has gone."""
        until = time.monotonic() + seconds
        while (found := self.alive()) and time.monotonic() < until:
            time.sleep(0.02)
        return found

    @property
    def code(self) -> int | None:
        """The launcher's exit code; None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        code: int | None = self._process.exitcode
        return code

    def _fork(self, variables: dict[str, str]) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        settings = {
            "nproc_per_node": self.ranks,
            "max_restarts": self.restarts,
            "shutdown_timeout": self.patience,
        }
        arguments = (list(self.words), self.folder / "log", variables, settings)
        process = context.Process(target=agent, args=arguments)
        process.start()
        return process

    def _execute(self, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
        words = [
            *self.prefix,
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(self.ranks)),
            *("--max-restarts", str(self.restarts), "--shutdown-timeout", str(self.patience)),
            *("--signals-to-handle", SIGNALS, *self.options, str(HERE / "rank.py")),
        ]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*words, *self.words],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_ours(self, entry: Path) -> bool:
        """By its session, or by the mark in what it was begun with; the dead do not count."""
        with suppress(OSError):
            state, _, _, session = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
            if state in "ZX":
                return False
            if int(session) in self._sessions or self._is_new_agent(entry):
                return True
            if f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes():
                self._sessions.add(int(session))
                return True
        return False

    def _is_new_agent(self, entry: Path) -> bool:
        """The launcher, also in its first moments: a fork that has no session of its own yet."""
        return entry.name == str(self.agent) and self.code is None


def agent(words: list[str], log: Path, variables: dict[str, str], settings: dict[str, int]) -> None:
    """torchrun, in a process that has torch already: its ranks are forks of it."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(variables)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        run_id=variables[MARK],
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        monitor_interval=0.05,
        start_method="fork",
        signals_to_handle=SIGNALS,
        **settings,
    )
    elastic_launch(config, forked_rank)(words)


def forked_rank(words: list[str]) -> None:
    """A rank that does not wait until the launcher has read that it is done.

    Of one killed in that wait, `Event.set` of torch's launcher waits without end to hear that it
    woke up. The program torchrun has no such wait: its ranks are programs.
    """
    try:
        main(words)
    finally:
        synchronize.Event.wait = lambda self, timeout=None: True  # type: ignore[method-assign]

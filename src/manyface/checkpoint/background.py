"""Saving while training goes on: the state is copied, a thread writes the copy.

What the ranks say to each other in that thread must not get between the collectives of training, so
it goes over a process group of its own. A state that is larger than the memory given to copies is
written at once, in a stream, and training waits.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from manyface.base.threads import use_one_core
from manyface.checkpoint.save import save
from manyface.checkpoint.staging import Staging, State, bytes_to_stage
from manyface.checkpoint.together import by_first
from manyface.observe.available import available_bytes
from manyface.parallel import Ranks

SHARE_OF_FREE = 0.4  # of the memory that is available, for the copies of all ranks of a machine
# A rank waits for others to write their rows, which may be a hundred gigabytes.
_PATIENCE = 7200.0  # seconds


@dataclass(frozen=True)
class Pause:
    """What a save took from training.

    Attributes:
        seconds: that `save` took, waiting for an earlier write included.
        in_background: whether the writing goes on; else it is done.
    """

    seconds: float
    in_background: bool


class AsyncSaver:
    """Commits checkpoints in the background, one at a time.

    Every rank constructs it, and calls `save` at the same steps. A failed write raises the same
    error on all ranks, at the next `wait` or `save`; the earlier checkpoints stay.

    Args:
        directory: of the checkpoints.
        staging_bytes: memory for a copy of this rank's state; 0 for none, so that every save is
            done when `save` returns; None for a share of what is available.
        ranks: whose group nobody else talks on; default: all ranks, with a new group.
    """

    def __init__(
        self, directory: Path, *, staging_bytes: int | None = None, ranks: Ranks | None = None
    ) -> None:
        self.directory = directory
        self._ranks = ranks or own_ranks()
        self._budget = staging_bytes
        self._staging = Staging()
        self._thread: threading.Thread | None = None
        self._committed: Path | None = None
        self._error: BaseException | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a write goes on."""
        return self._thread is not None and self._thread.is_alive()

    def reserve(self, tensors: State) -> None:
        """Make room for copies of such a state now; else the first `save` does, and is longer."""
        if self._fits(tensors):
            self._staging.reserve(tensors)

    def save(
        self,
        *,
        step: int,
        tensors: State,
        state: Mapping[str, Any],
        after: Callable[[Path], None] = lambda path: None,
        at_once: bool = False,
    ) -> Pause:
        """Begin to commit what `manyface.checkpoint.save` would; returns when training may go on.

        Args:
            after: done by rank 0 when the checkpoint is there, such as retention; in the thread.
            at_once: without a copy, done on return: nothing goes on that it could be beside.

        Raises what the write before this one raised, or this one if it is done already.
        """
        started = time.perf_counter()
        self._join()
        in_background = not at_once and self._fits(tensors)
        if in_background:
            tensors = self._staging.copy(tensors)
        write = partial(self._write, step=step, tensors=tensors, state=state, after=after)
        if in_background:
            self._thread = threading.Thread(target=self._keep_error, args=(write,), daemon=True)
            self._thread.start()
        else:
            write()
        return Pause(time.perf_counter() - started, in_background)

    def wait(self) -> Path | None:
        """The checkpoint that was committed since the last call, if there is one; waits for the
        write that goes on.

        Raises what that write raised. Ranks may learn of it some steps apart: where all must act in
        one step, agree on `is_writing` first.
        """
        self._join()
        committed, self._committed = self._committed, None
        return committed

    def _fits(self, tensors: State) -> bool:
        """Whether the state of every rank fits into its budget; all ranks call this."""
        wanted = bytes_to_stage(tensors)
        if self._budget is None:
            neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks.size))
            self._budget = int(available_bytes() * SHARE_OF_FREE / neighbours)
        too_big = torch.tensor(int(wanted > self._budget), device=self._ranks.talks_on)
        return not self._ranks.max_(too_big, "whether a copy fits").item()

    def _write(
        self, *, step: int, tensors: State, state: Mapping[str, Any], after: Callable[[Path], None]
    ) -> None:
        path = save(self.directory, step=step, tensors=tensors, state=state, ranks=self._ranks)
        self._committed = path
        by_first(self._ranks, "after a checkpoint", lambda: after(path))

    def _keep_error(self, write: Callable[[], None]) -> None:
        use_one_core()
        try:
            write()
        except BaseException as error:
            self._error = error

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def own_ranks(patience: float = _PATIENCE) -> Ranks:
    """All ranks, over a group of their own that carries tensors of the CPU; all call this.

    Args:
        patience: seconds that a rank waits for another.
    """
    return Ranks().beside(patience)

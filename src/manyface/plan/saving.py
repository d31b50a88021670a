"""What a checkpoint of many ranks takes: bytes, seconds, whether training waits for it."""

from dataclasses import dataclass
from math import ceil

from manyface.checkpoint.background import SHARE_OF_FREE
from manyface.plan.gpus import Cluster
from manyface.plan.traffic import OF_LINK

_SHORTEST = 30  # seconds: torchrun's own --shutdown-timeout
_SPARE = 5  # seconds beside step and save


@dataclass(frozen=True)
class Saving:
    """A checkpoint: each rank writes its rows with their state, the first one the backbone too.

    Attributes:
        of_rank: bytes of the first rank, which has most.
        of_all: bytes of all ranks together.
        budget: bytes of host memory for each rank in which it may be staged.
        seconds: until it is on the disk.
        is_staged: whether it is copied into host memory and written while training goes on.
        pause: seconds that training waits: for the copy, or else for the disk.
        shutdown: seconds that `torchrun --shutdown-timeout` must give.
    """

    of_rank: int
    of_all: int
    budget: int
    seconds: float
    is_staged: bool
    pause: float
    shutdown: int


def saving(
    cluster: Cluster,
    *,
    rows: int,
    replicated: int,
    host_free: int,
    step_seconds: float,
    staging: int | None = None,
) -> Saving:
    """What saving takes.

    Args:
        cluster: where.
        rows: bytes of a rank's rows and state.
        replicated: bytes that all ranks have alike.
        host_free: bytes of host memory for each rank that training leaves.
        step_seconds: of an update, at whose end a stop is noticed.
        staging: bytes of it that a rank's copy may take; None: the share that the saver takes.
    """
    of_rank, of_all = rows + replicated, rows * cluster.gpus + replicated
    budget = int(SHARE_OF_FREE * max(0, host_free)) if staging is None else staging
    of_machine = rows * cluster.gpus_of_a_machine + replicated
    seconds = of_machine / (cluster.disk_gb * 1e9)
    copied = of_rank / (OF_LINK * cluster.sheet.pcie)
    is_staged = of_rank <= budget
    pause = copied if is_staged else seconds
    # A save under way ends first, then the last one is written; or the disk is half as fast.
    shutdown = ceil((step_seconds + 2 * seconds + _SPARE) / 10) * 10
    return Saving(of_rank, of_all, budget, seconds, is_staged, pause, max(_SHORTEST, shutdown))

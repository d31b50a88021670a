"""The processes that train together: who has which rows, and what they say to each other."""

from manyface.parallel.ranks import ALONE, HERE, Pending, Ranks, is_distributed
from manyface.parallel.shard import Shard
from manyface.parallel.start import (
    is_first_rank,
    joined,
    launched_ranks,
    local_rank,
    most_restarts,
    patience,
    ranks_here,
)
from manyface.parallel.together import all_or_none

__all__ = [
    "ALONE",
    "HERE",
    "Pending",
    "Ranks",
    "Shard",
    "all_or_none",
    "is_distributed",
    "is_first_rank",
    "joined",
    "launched_ranks",
    "local_rank",
    "ranks_here",
    "most_restarts",
    "patience",
]

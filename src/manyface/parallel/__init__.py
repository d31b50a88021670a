"""The processes that train together: who has which rows, and what they say to each other."""

from manyface.parallel.ranks import ALONE, Pending, Ranks, is_distributed
from manyface.parallel.shard import Shard

__all__ = ["ALONE", "Pending", "Ranks", "Shard", "is_distributed"]

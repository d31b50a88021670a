"""Tensors of a state of which this rank has some rows only, as checkpoints want them."""

from collections.abc import Mapping
from typing import Any

from manyface.checkpoint import RowShard
from manyface.parallel import Shard


def with_shards(state: Mapping[str, Any], shards: Mapping[str, Shard]) -> dict[str, Any]:
    """`state` with a RowShard for each tensor that `shards` names."""
    return {
        name: RowShard(value, shards[name]) if name in shards else value
        for name, value in state.items()
    }

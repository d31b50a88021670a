"""What every rank has a copy of must be one thing: compared by hash.

A copy that drifts (a flipped bit, a step that one rank left out) spoils the training of all, and
nothing else shows it.
"""

import json
from collections import Counter
from collections.abc import Mapping

import torch
import xxhash

from manyface.base.errors import ReplicaError
from manyface.checkpoint.stream import Saved, raw_bytes
from manyface.parallel import Ranks


def check_replicas(tensors: Mapping[str, Mapping[str, Saved]], ranks: Ranks | None = None) -> None:
    """Raise ReplicaError, on all ranks, naming a tensor and the rank whose copy differs.

    Args:
        tensors: group -> name -> tensor, as `save` takes them; rows of a table are left out.
        ranks: all of them call this. 32 bytes travel from each, more only where copies differ.
    """
    ranks = ranks or Ranks()
    if ranks.is_alone:
        return
    hashes = {
        f"{group}: {name}": _hash(tensor)
        for group, members in sorted(tensors.items())
        for name, tensor in sorted(members.items())
        if isinstance(tensor, torch.Tensor)
    }
    text = json.dumps(hashes)
    if len(set(ranks.say(xxhash.xxh3_128_hexdigest(text.encode()), "hash of replicas"))) > 1:
        _explain([json.loads(each) for each in ranks.say(text, "hashes of replicas")])


def _explain(found: list[dict[str, str]]) -> None:
    for name in sorted(set().union(*found)):
        copies = [each.get(name, "none") for each in found]
        usual = Counter(copies).most_common(1)[0][0]  # of equally many, rank 0's
        if other := [rank for rank, copy in enumerate(copies) if copy != usual]:
            raise ReplicaError(name, rank=other[0], size=len(found))


def _hash(tensor: torch.Tensor) -> str:
    digest = xxhash.xxh3_64(f"{tensor.dtype} {list(tensor.shape)}".encode())
    for piece in raw_bytes(tensor):
        digest.update(piece)
    return digest.hexdigest()

"""Whether the ranks' copies are still one net: compared every so many steps, on the device.

A copy drifts by a flipped bit in memory or by a step that one rank made otherwise, and nothing else
would show it: the mean of gradients hides it. A tensor's checksum is the sum of its bits as
integers, which no single flip leaves as it was and which no order of summation changes. (A
checkpoint compares by a stronger hash, checkpoint/replicas.py; that would wait for the device.)
"""

from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor

from manyface.base.errors import ReplicaError
from manyface.checkpoint import RowShard
from manyface.parallel import Ranks

SUMS = "checksums of copies"
_PIECE_NUMBERS = 1 << 22
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def compare_copies(tensors: Mapping[str, Tensor | RowShard], ranks: Ranks) -> None:
    """Raise ReplicaError, on all ranks, naming a tensor and the rank whose copy differs.

    Args:
        tensors: by name, the same names on all ranks; rows of a table are left out.
        ranks: all of them call this: an all-gather of 8 bytes for each tensor.
    """
    copies = [(name, each) for name, each in tensors.items() if isinstance(each, Tensor)]
    if ranks.is_alone or not copies:
        return
    copies.sort(key=_kind_of_device)  # one copy of sums from each device, which it waits for
    sums = [
        torch.stack([checksum(copy) for _, copy in group]).to(ranks.talks_on)
        for _, group in groupby(copies, _kind_of_device)
    ]
    mine = torch.cat(sums)
    everyone = ranks.gather(mine[None], [1] * ranks.size, SUMS).wait()  # [W, number of tensors]
    usual = everyone.mode(dim=0).values
    if bool((different := everyone != usual).any()):
        rank, number = different.nonzero()[0].tolist()
        raise ReplicaError(copies[number][0], rank=rank, size=ranks.size)


def _kind_of_device(named: tuple[str, Tensor]) -> str:
    return named[1].device.type


def checksum(tensor: Tensor) -> Tensor:
    """Scalar int64 on the tensor's device: the sum of its elements' bits, wrapping."""
    flat = tensor.detach().contiguous().reshape(-1)
    integers = flat.view(_INTEGERS[flat.element_size()])
    # In pieces: a sum in int64 makes a copy in int64 first.
    sums = [piece.sum(dtype=torch.int64) for piece in torch.split(integers, _PIECE_NUMBERS)]
    return torch.stack(sums).sum()

"""Memory of batches, used again when nobody refers to the batch any more.

A batch of 128 images of 112 pixels is 19 MB of floats. Fresh memory of that size comes from the
kernel page by page, each one zeroed: a fifth of the processor time of making the batch. What a
tensor of `take` has is given back when the last reference to its storage goes, of a view or of
autograd too. Pinned memory needs none of this: torch keeps it.
"""

import weakref
from collections import deque

import torch
from torch import Tensor

Key = tuple[tuple[int, ...], torch.dtype]


class Buffers:
    """Hands out tensors of undefined content. Safe from many threads.

    Args:
        spare: tensors of one shape that are kept while nobody uses them.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._free: dict[Key, deque[Tensor]] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An empty tensor on the CPU."""
        free = self._free.setdefault((shape, dtype), deque(maxlen=self._spare))
        try:
            owner = free.pop()
        except IndexError:
            owner = torch.empty(shape, dtype=dtype)
        # The storage of the tensor that is handed out keeps `memory`, and nothing else does.
        memory = owner.numpy()
        weakref.finalize(memory, free.append, owner).atexit = False
        return torch.from_numpy(memory)

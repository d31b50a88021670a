"""Whether a training can fit into this machine's memory, by lower bounds: the rest shows itself."""

import torch
from torch import Tensor

from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.observe.available import available_bytes
from manyface.observe.memory import resident_bytes
from manyface.train.method import Classification, PoolTraining


class DoesNotFitError(Exception):
    """So many bytes are not there."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class Room:
    """Host memory that this process may come to; what a GPU lacks, torch says itself."""

    def __init__(self, device: torch.device) -> None:
        self.free = available_bytes() + resident_bytes()
        self._counts = device.type == "cpu"

    def check(self, needed: int) -> None:
        """Refuse what needs more, in bytes."""
        if self._counts and needed > self.free:
            raise DoesNotFitError(needed)


def center_bytes(config: Config, num_identities: int) -> int:
    """Of class centers and their momentum in memory; 0 for a head without them."""
    chosen = config.head
    if chosen.method in WITHOUT_CENTERS or chosen.placement == "file":
        return 0
    copies = 1 + (chosen.optimizer == "adamw" or chosen.momentum > 0)
    numbers = num_identities * chosen.sub_centers * config.backbone.embedding_size
    number_bytes: int = getattr(torch, chosen.dtype).itemsize
    return copies * numbers * number_bytes


def activation_bytes(method: Classification | PoolTraining, config: Config) -> int:
    """What autograd keeps of the forward pass of a batch, from passes of 2 and 4 images."""
    few, more = (_saved_bytes(method, images, config.data.image_size) for images in (2, 4))
    return few + (more - few) * (config.train.batch_size - 2) // 2


def _saved_bytes(method: Classification | PoolTraining, images: int, size: int) -> int:
    """Of the net as it is before it is compiled; its weights count, since autocast copies them."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    method.net.train()
    pixels = torch.zeros(images, 3, size, size, device=method.device)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, method.precision():
        method.net.forward(pixels)
    return sum(saved.values())

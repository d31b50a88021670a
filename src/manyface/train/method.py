"""What the trainer drives: a method. It knows how a loss comes about and how a step is made.

Classification (backbone + head over single images) is the method of full FC and Partial FC,
PoolTraining (probe net, gallery net and pool over dual batches) that of F2C. Loop, checkpoints and
evaluation do not know which one they drive.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, Required, TypedDict, Unpack

import torch
from torch import Tensor, nn

from manyface.backbones import AveragedNet
from manyface.base.errors import CheckpointError
from manyface.data import Batch, DualBatch
from manyface.heads.f2c import F2C
from manyface.parallel import ALONE, Ranks, Shard
from manyface.train.copies import Copies
from manyface.train.shards import with_shards


class Method(Protocol):
    """One way to train an embedding."""

    device: torch.device

    def prepare(self, batch: Batch) -> None:
        """Take in a batch before the first step of a new run (prepare.py); most are given none."""

    def begin_step(self) -> None:
        """Forget old gradients, go to training mode."""

    def accumulating(self) -> AbstractContextManager[None]:
        """Losses inside are followed by another one of the same step."""

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch on the method's device, ready for `backward`."""

    def clip_gradients(self) -> Tensor:
        """Clip as configured; returns the backbone's gradient norm before clipping, scalar."""

    def update(self, factor: float) -> None:
        """Move everything that learns; `factor` multiplies each part's base learning rate."""

    def learning_rate(self, factor: float) -> float:
        """The learning rate to show for a factor."""

    @property
    def embedder(self) -> nn.Module:
        """The net that is evaluated and exported: images [B, 3, S, S] -> embeddings [B, D]."""

    def state_dict(self) -> dict[str, Any]:
        """Group -> tree of all that the next step depends on, beside the step number."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class Head(Protocol):
    """What Classification needs of a head; `manyface.heads` has them."""

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Tensor: ...
    def announce(self, labels: Tensor) -> None: ...
    def shards(self) -> dict[str, Shard]: ...
    def step(self, lr: float) -> None: ...
    def zero_grad(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class NetOptions(TypedDict, total=False):
    """Keyword arguments that every method shares, as `NetMethod` documents them."""

    learning_rate: Required[float]
    device: Required[torch.device]
    clip_norm: float
    averaged: AveragedNet | None
    autocast: torch.dtype | None
    ranks: Ranks


class NetMethod(ABC):
    """What methods share: one net with one optimizer, clipping, a moving average to evaluate.

    Args:
        net: float32 [B, 3, S, S] -> [B, D]; may be compiled in place.
        optimizer: of the net; its learning rate is set at every step.
        learning_rate: base value of the net.
        device: where everything lives.
        clip_norm: largest norm of the net's gradient, 0 for none.
        averaged: a moving average of the net; if given, it is what is evaluated.
        autocast: dtype of the net's matrix products, None for full precision.
        ranks: that train together: each has a copy of the net, and these stay equal.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        learning_rate: float,
        device: torch.device,
        clip_norm: float = 0.0,
        averaged: AveragedNet | None = None,
        autocast: torch.dtype | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.net, self.optimizer, self.averaged = net, optimizer, averaged
        self.copies = Copies(net, ranks)
        self.base_learning_rate, self.device = learning_rate, device
        self.clip_norm = clip_norm
        self._autocast = autocast
        self._parameters = [p for p in net.parameters() if p.requires_grad]

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch."""

    @abstractmethod
    def rest_state(self) -> dict[str, Any]:
        """Group -> tree of what the method has beside the net and its optimizer."""

    @abstractmethod
    def load_rest_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of `rest_state`."""

    def prepare(self, batch: Batch) -> None:
        raise TypeError(f"{type(self).__name__} has no use for images before its first step")

    def begin_step(self) -> None:
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)

    def accumulating(self) -> AbstractContextManager[None]:
        return self.copies.apart()

    def clip_gradients(self) -> Tensor:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
        return norm

    def update(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_learning_rate * factor
        self.copies.average_statistics(self.copied_modules())
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update(self.net)

    def learning_rate(self, factor: float) -> float:
        return self.base_learning_rate * factor

    def copied_modules(self) -> list[nn.Module]:
        """Of which every rank has a copy, with statistics of its own part of the batches."""
        return [self.net]

    @property
    def embedder(self) -> nn.Module:
        return self.net if self.averaged is None else self.averaged.net

    def state_dict(self) -> dict[str, Any]:
        state = {
            "backbone": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.rest_state(),
        }
        if self.averaged is not None:
            # Under the names of the net, so that the file is one to start from or to export.
            state["averaged"] = self.averaged.net.state_dict()
            state["counters"] = {"averaged_updates": self.averaged.num_updates}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        expected = set(self.state_dict())
        if expected != set(state):
            raise CheckpointError(
                f"the checkpoint holds {sorted(state)}, this run needs {sorted(expected)}; "
                "resume with the config that the run was started with"
            )
        self.net.load_state_dict(state["backbone"])
        # It keeps the tensors that it is given, which may be views of a checkpoint's files.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.load_rest_state(state)
        if self.averaged is not None:
            self.averaged.net.load_state_dict(state["averaged"])
            self.averaged.num_updates = state["counters"]["averaged_updates"]

    def precision(self) -> torch.autocast:
        """The autocast of the net's forward pass."""
        wanted = self._autocast is not None
        return torch.autocast(self.device.type, dtype=self._autocast, enabled=wanted)


class Classification(NetMethod):
    """Backbone and head over single images; a `Method`.

    Args:
        backbone: the net.
        head: loss and class centers, with an optimizer of its own.
        optimizer: of the backbone.
        head_learning_rate: base value of the head.
        others: as in NetMethod.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        optimizer: torch.optim.Optimizer,
        *,
        head_learning_rate: float,
        **options: Unpack[NetOptions],
    ) -> None:
        super().__init__(backbone, optimizer, **options)
        self.head, self.head_learning_rate = head, head_learning_rate

    def begin_step(self) -> None:
        super().begin_step()
        self.head.zero_grad()

    def loss(self, batch: Batch) -> Tensor:
        images = batch.images_on(self.device)
        labels = batch.labels.to(self.device, non_blocking=True)
        self.head.announce(labels)  # they travel while the net works
        with self.precision():
            embeddings = self.copies(images)  # [B, D]
        # The softmax is a full-precision island: logits of 64 cos(theta) need more than 8 bits.
        return self.head(embeddings.float(), labels)

    def update(self, factor: float) -> None:
        super().update(factor)
        self.head.step(self.head_learning_rate * factor)

    def rest_state(self) -> dict[str, Any]:
        return {"head": with_shards(self.head.state_dict(), self.head.shards())}

    def load_rest_state(self, state: Mapping[str, Any]) -> None:
        self.head.load_state_dict(state["head"])


class PoolTraining(NetMethod):
    """F2C over dual batches: the probe net learns; a `Method`.

    Args:
        f2c: probe net, gallery net, pool.
        optimizer: of the probe net.
        others: as in NetMethod.
    """

    def __init__(
        self, f2c: F2C, optimizer: torch.optim.Optimizer, **options: Unpack[NetOptions]
    ) -> None:
        super().__init__(f2c.probe_net, optimizer, **options)
        self.f2c = f2c
        self._follows = True

    def prepare(self, batch: Batch) -> None:
        images = batch.images_on(self.device)
        with self.precision():
            self.f2c.prefill(images, batch.labels)

    def begin_step(self) -> None:
        super().begin_step()
        self._follows = True  # the gallery net: once, with the first batch of the step

    def loss(self, batch: Batch) -> Tensor:
        if not isinstance(batch, DualBatch):
            raise TypeError(f"F2C needs batches of a DualLoader, got {type(batch).__name__}")
        images = batch.images_on(self.device)
        with self.precision(), self.f2c.probing_by(self.copies):
            loss: Tensor = self.f2c(
                replace(batch, images=images, finish=None), follow=self._follows
            )
        self._follows = False
        return loss

    def copied_modules(self) -> list[nn.Module]:
        return [self.f2c.probe_net, self.f2c.gallery_net]

    def rest_state(self) -> dict[str, Any]:
        state = with_shards(self.f2c.state_dict(), self.f2c.shards())
        return {"f2c": {k: v for k, v in state.items() if not k.startswith("probe_net.")}}

    def load_rest_state(self, state: Mapping[str, Any]) -> None:
        probe = {f"probe_net.{name}": value for name, value in state["backbone"].items()}
        self.f2c.load_state_dict({**state["f2c"], **probe})

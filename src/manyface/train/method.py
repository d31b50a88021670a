"""What the trainer drives: a method. It knows how a loss comes about and how a step is made.

Classification (backbone + head over single images) is the method of full FC and Partial FC. Methods
with other nets and loaders (F2C: probe net, gallery net, pool) satisfy the same protocol; loop,
checkpoints and evaluation do not know which one they drive.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from manyface.backbones import AveragedNet
from manyface.base.errors import CheckpointError
from manyface.data.loader import Batch


class Method(Protocol):
    """One way to train an embedding."""

    device: torch.device

    def begin_step(self) -> None:
        """Forget old gradients, go to training mode."""

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
    def step(self, lr: float) -> None: ...
    def zero_grad(self) -> None: ...
    def clip_grad_norm_(self, max_norm: float) -> Tensor: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


class Classification:
    """Backbone and head over single images, one optimizer for the backbone; a `Method`.

    Args:
        backbone: float32 [B, 3, S, S] -> [B, D]; may be compiled in place.
        head: loss and class centers, with an optimizer of its own.
        optimizer: of the backbone; its learning rate is set at every step.
        learning_rate: base value of the backbone.
        head_learning_rate: base value of the head.
        device: where backbone and head live.
        clip_norm: largest norm of the backbone's gradient, 0 for none.
        clip_head: clip the head's row gradients to `clip_norm` too (the field does not).
        averaged: a moving average of the backbone; if given, it is what is evaluated.
        autocast: dtype of the backbone's matrix products, None for full precision.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        optimizer: torch.optim.Optimizer,
        *,
        learning_rate: float,
        head_learning_rate: float,
        device: torch.device,
        clip_norm: float = 0.0,
        clip_head: bool = False,
        averaged: AveragedNet | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.backbone, self.head, self.optimizer = backbone, head, optimizer
        self.averaged = averaged
        self.base_learning_rate, self.head_learning_rate = learning_rate, head_learning_rate
        self.device, self._autocast = device, autocast
        self._clip_norm, self._clip_head = clip_norm, clip_head
        self._parameters = [p for p in backbone.parameters() if p.requires_grad]

    def begin_step(self) -> None:
        self.backbone.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.head.zero_grad()

    def loss(self, batch: Batch) -> Tensor:
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        with torch.autocast(
            self.device.type, dtype=self._autocast, enabled=self._autocast is not None
        ):
            embeddings = self.backbone(images)  # [B, D]
        # The softmax is a full-precision island: logits of 64 cos(theta) need more than 8 bits.
        return self.head(embeddings.float(), labels)

    def clip_gradients(self) -> Tensor:
        if self._clip_head and self._clip_norm > 0:
            self.head.clip_grad_norm_(self._clip_norm)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        return norm

    def update(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_learning_rate * factor
        self.optimizer.step()
        self.head.step(self.head_learning_rate * factor)
        if self.averaged is not None:
            self.averaged.update(self.backbone)

    def learning_rate(self, factor: float) -> float:
        return self.base_learning_rate * factor

    @property
    def embedder(self) -> nn.Module:
        return self.backbone if self.averaged is None else self.averaged.net

    def state_dict(self) -> dict[str, Any]:
        state = {
            "backbone": self.backbone.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "head": self.head.state_dict(),
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
        self.backbone.load_state_dict(state["backbone"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.head.load_state_dict(state["head"])
        if self.averaged is not None:
            self.averaged.net.load_state_dict(state["averaged"])
            self.averaged.num_updates = state["counters"]["averaged_updates"]

r"""What all heads with class centers share. A head is a choice of active rows; the rest is here.

    loss = head(embeddings, labels)    # forward: loss, and d loss / d embeddings already finished
    loss.backward()                    # hands that gradient to the backbone, notes its scale
    head.step(lr)                      # row gradients chunk by chunk, rows updated in place

*Fused* (the usual case: one forward and backward per step). Between `backward` and `step` a head
keeps O(B D) bytes. `step` computes the softmax numerators again, a chunk of rows at a time, and
moves the rows as soon as their gradient is known: no gradient of the size of the table ever exists.

*Unfused*. Several backwards before a step (accumulation), or a call of `grad_norm`,
`clip_grad_norm_` or `row_gradients`, make the row gradients real: [K, D], K the rows that took
part. `step` then applies their sum. Losses add up as in torch: divide each by the number of
micro-batches to average. Forwards whose loss is never backpropagated change nothing (but in a
training head with gradients enabled, running averages of a margin or a rule: they take in every
batch), and a loss from before a step cannot be backpropagated after it.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor, nn

from manyface.base.errors import CheckpointError
from manyface.base.numeric import working_dtype
from manyface.centers import CenterTable, Place, RowOptimizer, RowSGD
from manyface.heads.announced import Announced, Announces
from manyface.heads.averages import Averages
from manyface.heads.checks import (
    check_arguments,
    check_count,
    check_finite,
    check_labels,
    check_shape,
    check_table,
)
from manyface.heads.gradients import Backward, ForwardPass, RowGradients
from manyface.heads.row_order import RowLayout, RowOrder
from manyface.margins import Margin, NegativeRule
from manyface.margins.schedules import StepValue, at_step, check_schedules
from manyface.parallel import Pending, Ranks, Shard
from manyface.softmax.function import finished
from manyface.softmax.rows import chunk_borders
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE, DEFAULT_KEPT_BYTES, streamed_forward
from manyface.softmax.sub_centers import rows_of_classes

# Backward passes without a step after which a loop has forgotten head.step.
_MANY_PENDING = 64
# What collectives are called, beside those of the softmax and of `announce`.
EMBEDDINGS, GRADIENTS, CENTERS, NORMS = "embeddings", "embedding gradients", "centers", "norms"
_NO_WINDOW = torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True)
class Selection:
    """Classes of a step: `ids` int64 [K], distinct (None: all), `targets` int64 [B] into them.

    Both are in the order of the table (`RowOrder`): with one center per class they are its rows.
    On one of several ranks they count from its first; -1 is the target where the class is not here,
    and on all of them where it takes no part.
    """

    ids: Tensor | None
    targets: Tensor

    def on(self, shard: Shard) -> "Selection":
        """What a rank has of a selection from the classes of all ranks."""
        if shard.is_whole or self.ids is None:
            return self
        here = shard.holds(self.ids)
        places = torch.where(here, here.cumsum(0) - 1, -1)
        targets = torch.where(self.targets < 0, -1, places[self.targets])
        return Selection(self.ids[here] - shard.start, targets)


class HeadOptions(TypedDict, total=False):
    """Arguments that every head shares, as `CenterHead` documents them."""

    scale: float
    negatives: NegativeRule | None
    label_smoothing: float
    sub_centers: int
    schedules: Mapping[str, StepValue] | None
    momentum: float
    weight_decay: float
    optimizer: RowOptimizer | None
    seed: int
    chunk_size: int
    kept_bytes: int
    dtype: torch.dtype
    operands: torch.dtype | None
    device: torch.device | str | None
    place: Place | None
    ranks: Ranks | None


class CenterHead(nn.Module, Announces, ABC):
    """A head with one center per class; subclasses choose which classes take part in a step.

    Args:
        num_classes: number of identities.
        dim: length of an embedding.
        margin: target cosine -> target logit.
        scale: factor of all logits (s in the papers).
        negatives: cosine of another class -> its logit, such as `CurricularFace()`; None leaves it.
        label_smoothing: share of a label that is spread evenly over the classes that take part.
        sub_centers: centers per class, of which the nearest counts (`softmax.sub_centers`).
        schedules: values that change with the number of steps, by name: `scale`, and numbers of
            the margin such as `m`; see `margins/schedules.py`.
        momentum: of the centers.
        weight_decay: of the centers.
        optimizer: of the centers, instead of SGD with these two, whose missed steps are `frozen`:
            `RowSGD(..., mode="lazy-exact")`, `RowAdamW(...)`; of this head alone.
        seed: of the centers' first values and of all draws, in [0, 2**64).
        chunk_size: centers per chunk; more is not faster once a chunk fills the caches.
        kept_bytes: softmax numerators are kept from `forward` to `step` if they take no more than
            this: three matrix products, not four.
        dtype: of the centers and their momentum: float32, float64, or bfloat16, which halves both;
            it is computed with in float32 and rounded stochastically.
        operands: of the factors of matrix products; None is `dtype`. bfloat16 is faster where the
            machine has instructions for it; see `softmax/streamed.py` on what stays in float32.
        device: that computes, and where the centers are unless they have a `place`.
        place: where centers and momentum live, `InMemory("cpu")` or `InFiles(folder)`; the rows of
            a step are moved to `device` and back.
        ranks: that share the centers; None is all processes of torch.distributed, if there are any.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        dim: int,
        margin: Margin,
        scale: float = 64.0,
        negatives: NegativeRule | None = None,
        label_smoothing: float = 0.0,
        sub_centers: int = 1,
        schedules: Mapping[str, StepValue] | None = None,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        optimizer: RowOptimizer | None = None,
        seed: int = 0,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        kept_bytes: int = DEFAULT_KEPT_BYTES,
        dtype: torch.dtype = torch.float32,
        operands: torch.dtype | None = None,
        device: torch.device | str | None = None,
        place: Place | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        check_arguments(
            margin=margin,
            scale=scale,
            chunk_size=chunk_size,
            dtype=dtype,
            negatives=negatives,
            label_smoothing=label_smoothing,
            operands=operands,
            seed=seed,
        )
        check_count("sub_centers", sub_centers)
        self.sub_centers = sub_centers
        self.schedules = dict(schedules or {})
        check_schedules(margin, self.schedules)
        at_step(margin, scale, self.schedules, 0)
        self.kept_bytes, self.operands = kept_bytes, operands
        self.num_classes, self.dim, self.seed = num_classes, dim, seed
        self.margin, self.scale, self.chunk_size = margin, float(scale), chunk_size
        self.negatives, self.label_smoothing = negatives, float(label_smoothing)
        self.averages = Averages.of(margin=margin, negatives=negatives)
        self.ranks = ranks or Ranks()
        self.shard = Shard.of(num_classes, rank=self.ranks.rank, size=self.ranks.size)
        self.centers = CenterTable(
            len(self.shard) * sub_centers,
            dim,
            seed=seed,
            optimizer=optimizer or RowSGD(momentum=momentum, weight_decay=weight_decay),
            dtype=dtype,
            device=device,
            place=place,
            first_row=self.shard.start * sub_centers,
        )
        self.row_order = RowOrder(num_classes, seed=seed)
        self.num_steps = 0
        self._pending: list[Backward] = []
        self._used: list[ForwardPass] = []  # whose row gradients were made real
        self._gradients: RowGradients | None = None
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @abstractmethod
    def select(self, labels: Tensor) -> Selection:
        """The classes here that take part in a step with these labels, int64 [B] of all ranks, all
        in the order of the table."""

    def loss_at(self, step: int) -> tuple[Margin, float]:
        """Margin and scale that step number `step` (from 0) trains with."""
        return at_step(self.margin, self.scale, self.schedules, step)

    def class_centers(self, classes: Tensor) -> Tensor:
        """Copies [n, dim] of the centers of `classes`, integer [n]: what `centers.weight` holds is
        in the order of rows, see `RowOrder`. All S of each as [n, S, dim] where sub_centers =
        S > 1: which one is dominant is a matter of images, not of the table. Of several ranks all
        ask for the same classes: an all-reduce of n S dim numbers.

        Raises:
            LabelError: a class is no integer or out of range.
        """
        check_labels(classes, num_classes=self.num_classes)
        places = self.row_order(classes.to(torch.int64))
        here = self.shard.holds(places)
        rows = rows_of_classes(places[here] - self.shard.start, self.sub_centers)
        rows, order = torch.unique(rows, return_inverse=True)
        found = self.centers.weight.new_zeros(len(classes), self.sub_centers, self.dim)
        found = found.to(self.centers.device)
        mine = self.centers.active(rows).take(order)
        found[here.to(found.device)] = mine.view(-1, self.sub_centers, self.dim)
        found = self.ranks.sum_(found, CENTERS).flatten(0, 1)
        return found if self.sub_centers == 1 else found.view(-1, self.sub_centers, self.dim)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch, scalar in the working dtype; 0 for an empty batch.

        Of several ranks each gives its part of the batch, perhaps an empty one; the loss is the
        mean over all of it, the same on all. Its gradient in the embeddings of a rank is that of
        the mean times the number of ranks: DistributedDataParallel averages the gradients of the
        ranks' nets, where the gradient of a mean over all samples is their sum. So whatever
        factor a loop puts on the loss must be the same on all ranks.

        Collectives, of B samples of W ranks, b here, `most` on the fullest: the labels
        (`announce`); an all-gather of most D embeddings as they come; all-reduces of the softmax
        (stage 11 there: 2 B numbers for most margins); a reduce-scatter of W most D gradients,
        under way until `backward` wants it.

        Args:
            embeddings: [b, dim], any length and floating dtype.
            labels: integer [b], class ids in [0, num_classes).

        Raises:
            LabelError: a label is no integer or out of range.
            NonFiniteError: an embedding holds NaN or infinity; on all ranks, whoever has it.
        """
        check_table(self.centers.weight, dtype=self.centers.dtype)
        batch = self._batch_of(labels)
        check_shape(embeddings, batch=len(labels), dim=self.dim)
        with self._full_precision():
            everyone = self.ranks.gather(embeddings.detach(), batch.counts, EMBEDDINGS).wait()
            values = everyone.to(working_dtype(self.centers.dtype))
            check_finite(values, batch.counts)
            return self._loss(embeddings, values, batch)

    def step(self, lr: float, *, grad_scale: float = 1.0) -> None:
        """Move the rows that took part since the last step; raises if none did.

        Args:
            lr: learning rate.
            grad_scale: factor by which the loss was scaled up before `backward` (the scale of a
                GradScaler); it is taken out of the row gradients.
        """
        if not (0.0 <= lr < float("inf") and 0.0 < grad_scale < float("inf")):
            raise ValueError(f"expected lr >= 0 and grad_scale > 0, got {lr} and {grad_scale}")
        with torch.no_grad(), self._full_precision():
            if len(self._pending) == 1 and self._gradients is None:
                self._fused_step(self._pending[0], lr, 1.0 / grad_scale)
            else:
                self._unfused_step(lr, 1.0 / grad_scale)
            self.centers.finish_step(lr=lr)
        self.num_steps += 1
        for passed in [*self._used, *(each.forward for each in self._pending)]:
            passed.drop()
        self.zero_grad()

    def row_gradients(self) -> RowGradients:
        """Sum of the row gradients since the last step, made real: [K, D] of memory.

        `clip_grad_norm_` and `step` write into what this returns: clone it to keep it.
        """
        with torch.no_grad(), self._full_precision():
            while self._pending:
                backward = self._pending.pop(0)
                found = backward.gradients()
                self._used.append(backward.forward)
                self._gradients = found if self._gradients is None else self._gradients.merge(found)
        if self._gradients is None:
            raise RuntimeError("the head has no gradient: call loss.backward() before head.step()")
        return self._gradients

    def grad_norm(self) -> Tensor:
        """Euclidean norm of the row gradients of all ranks, scalar; goes over to the unfused mode.

        All ranks call it: an all-reduce of one number.
        """
        norm: Tensor = torch.linalg.vector_norm(self.row_gradients().values)
        return norm if self.ranks.is_alone else self.ranks.sum_(norm.square(), NORMS).sqrt()

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale the row gradients to at most `max_norm`; returns the norm before."""
        norm = self.grad_norm()
        self.row_gradients().values.mul_((max_norm / (norm + 1e-6)).clamp_max(1.0))
        return norm

    def shards(self) -> dict[str, Shard]:
        """The tensors of `state_dict` of which this rank has some rows, [n, ...], and which."""
        shard = self.shard.times(self.sub_centers)
        return {f"centers.{name}": shard for name, _ in self.centers.named_buffers()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients since the last step."""
        self._pending.clear()
        self._used.clear()
        self._gradients = None

    def arguments(self) -> str:
        """What must be the same on all ranks."""
        optimizer = vars(self.centers.optimizer).items()
        numbers = {k: v for k, v in optimizer if isinstance(v, float | int | str) and k[0] != "_"}
        centers = f"seed={self.seed}, dtype={self.centers.dtype}, {numbers}"
        return f"{type(self).__name__}({self.extra_repr()}, {centers})"

    def extra_repr(self) -> str:
        """Arguments as they would be written."""
        text = f"{self.num_classes}, {self.dim}, margin={self.margin}, scale={self.scale:g}"
        text += "" if self.negatives is None else f", negatives={self.negatives}"
        text += "" if self.sub_centers == 1 else f", sub_centers={self.sub_centers}"
        return text + (
            f", label_smoothing={self.label_smoothing:g}" if self.label_smoothing else ""
        )

    def get_extra_state(self) -> Tensor:
        """int64: seed (its 64 bits) and number of steps, on which a step's draws depend; the
        `RowLayout`; the bits of the window of missed steps, if the optimizer has one."""
        signed = self.seed - 2**64 if self.seed >= 2**63 else self.seed
        window = self.centers.optimizer.state_dict().get("window", _NO_WINDOW)
        layout = RowLayout(self.row_order.is_shuffled, self.sub_centers)
        counts = torch.tensor([signed, self.num_steps, layout.as_int()])
        return torch.cat([counts, window.flatten().cpu().view(torch.int64)])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`: the loaded head draws as the saved one would have,
        rounding of bfloat16 centers included."""
        shuffled, layout = self.row_order.is_shuffled, RowLayout.of(state)
        if layout.sub_centers != self.sub_centers:
            raise CheckpointError(
                f"these are {layout.sub_centers} centers per class, and this head has "
                f"{self.sub_centers}; continue with head.sub_centers = {layout.sub_centers}"
            )
        if shuffled and not layout.is_shuffled:
            raise CheckpointError(
                "these class centers lie in the order of their classes, as in checkpoints of "
                "manyface before tables were shuffled; continue with that version"
            )
        if layout.is_shuffled and not shuffled:
            raise CheckpointError(
                "these class centers are shuffled, and this head keeps them in the order of their "
                "classes; load them into a FullFC or PartialFC"
            )
        self.seed, self.num_steps = int(state[0]) % 2**64, int(state[1])
        self.row_order = RowOrder(self.num_classes, seed=self.seed, shuffled=shuffled)
        self.centers.reseed(self.seed)
        self._load_window(state[3:].cpu().view(torch.float64), num_steps=state[1].cpu())

    def _load_window(self, bits: Tensor, *, num_steps: Tensor) -> None:
        optimizer = self.centers.optimizer
        size = 1 if optimizer.window is None else optimizer.window.size
        window = {"window": bits.view(-1, size, size), "num_steps": num_steps}
        optimizer.load_state_dict(window if len(bits) else {})

    def _loss(self, embeddings: Tensor, values: Tensor, batch: Announced) -> Tensor:
        labels = batch.all_labels()
        if labels.shape[0] == 0:
            nobody = self.centers.active(labels)
            empty = ForwardPass(nobody, residual=None)
            nothing = Pending(lambda: torch.zeros_like(values))
            return self._attach(embeddings, values.sum(), nothing, empty)
        margin, scale = self.loss_at(self.num_steps)
        selection = self.select(self.row_order(labels))
        ids = selection.ids
        rows = self.centers.active(None if ids is None else rows_of_classes(ids, self.sub_centers))
        trains = torch.is_grad_enabled()
        with torch.no_grad():
            result = streamed_forward(
                values,
                rows,
                selection.targets,
                margin=margin,
                scale=scale,
                negatives=self.negatives,
                label_smoothing=self.label_smoothing,
                sub_centers=self.sub_centers,
                observe=trains and self.training,
                chunk_size=self.chunk_size,
                operands=self.operands,
                kept_bytes=self.kept_bytes if trains else 0,
                ranks=self.ranks,
                most_rows=self.num_classes * self.sub_centers,
            )
            gradient = self.ranks.scatter_sum(result.embedding_gradient, batch.counts, GRADIENTS)
        self._look_ahead()
        return self._attach(embeddings, result.loss, gradient, ForwardPass(rows, result.residual))

    def _look_ahead(self) -> None:
        """When the rows of a step have been read: the time to ask for those of the next one."""

    def _attach(
        self, embeddings: Tensor, loss: Tensor, gradient: Pending, passed: ForwardPass
    ) -> Tensor:
        if not torch.is_grad_enabled():
            return loss
        if not embeddings.requires_grad:  # a frozen backbone: the centers still learn
            with torch.inference_mode(False):
                embeddings = embeddings.detach().clone().requires_grad_()
        used = partial(self._note_backward, passed)
        return finished(embeddings, loss, gradient, factor=self.ranks.size, used=used)

    def _full_precision(self) -> torch.autocast:
        # The softmax is a full-precision island: see softmax/streamed.py on what bf16 would cost.
        return torch.autocast(self.centers.device.type, enabled=False)

    def _note_backward(self, passed: ForwardPass, upstream: Tensor) -> None:
        passed.check_fresh()
        for each in self._pending:
            if each.forward is passed:  # one graph, two backwards: they add, as always in torch
                each.upstream = each.upstream + upstream
                return
        self._pending.append(Backward(passed, upstream))
        if len(self._pending) == _MANY_PENDING:
            warnings.warn(
                f"{_MANY_PENDING} backward passes without head.step(lr): the centers do not learn",
                stacklevel=2,
            )

    def _fused_step(self, pending: Backward, lr: float, factor: float) -> None:
        rows, upstream = pending.forward.rows, pending.upstream * factor
        for start, stop, chunk in pending.forward.chunks():
            rows.update(start, stop, chunk, factor=upstream, lr=lr, step=self.num_steps)

    def _unfused_step(self, lr: float, factor: float) -> None:
        gradients = self.row_gradients()
        rows, scale = self.centers.active(gradients.ids), gradients.values.new_tensor(factor)
        for start, stop in chunk_borders(len(rows), self.chunk_size):
            piece = gradients.values[start:stop]
            rows.update(start, stop, piece, factor=scale, lr=lr, step=self.num_steps)


def _forget(module: nn.Module, incompatible_keys: object) -> None:
    """After a load: gradients of the centers that were there before mean nothing."""
    module.zero_grad()

r"""insightface's `PartialFC_V2`: its signature, its numerics, its `opt.step()`, on the heads here.

    from manyface.compat.insightface import PartialFC_V2  # the one line that train_v2.py changes

Their class gives a dense gradient to its parameter, and `torch.optim.SGD` moves all N rows in every
step. Here the rows are a `CenterHead`'s, and `weight` is a parameter on the same memory:

1. `forward` is the head's. `backward` leaves in `weight.grad` a *mark*, a sparse tensor of one
   stored row: 1 at the first column. No gradient of the size of the rows exists.
2. What a loop does to gradients it does to the mark. `zero_grad` takes it away, and the head's
   gradients with it. A GradScaler unscales its value: the factor by which row gradients must be
   multiplied. A step that the scaler skips is followed by `zero_grad`.
3. Before any optimizer that owns `weight` makes a step (torch's global hook), the mark is taken
   away, so that the optimizer passes `weight` over, and the head makes the step with learning rate,
   momentum and weight decay of its parameter group. Rows outside of the sample are made up exactly
   when they are next read (`RowSGD(mode="lazy-exact")`): what SGD makes of the whole matrix.
4. Momentum lies in the optimizer's state, so `state_dict` of both is theirs, in both directions.

Under torch.distributed `weight` is the rank's own classes, sharded as theirs, and each rank's
optimizer has them, as in theirs; what travels is what the heads send.

An optimizer other than plain `torch.optim.SGD` (AdamW; SGD with nesterov, dampening, maximize or
fused) gets the dense gradient [N, D] instead of the mark and moves the rows itself, at their cost.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsInt, cast

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from manyface.base.errors import ConfigError
from manyface.centers import RowSGD
from manyface.centers.sgd import SGDMode
from manyface.heads import CenterHead, FullFC, PartialFC
from manyface.heads.base import HeadOptions
from manyface.heads.checks import refuse_margin
from manyface.heads.row_order import RowOrder
from manyface.margins import CosFace, InterclassFilter, Margin
from manyface.margins.angular import straight_through
from manyface.margins.base import GradientKind
from manyface.margins.checks import check_radians
from manyface.parallel import Ranks

_NAME = "PartialFC_V2"


@dataclass(frozen=True)
class UnguardedArcFace:
    """psi(c) = cos(theta + m) at every angle, with slope 1: theirs. Past pi it rises again, where
    `ArcFace` is continued."""

    m: float
    gradient: GradientKind = "straight_through"

    def __post_init__(self) -> None:
        check_radians("ArcFace m", self.m)

    def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
        """[B] -> [B]."""
        return straight_through(cosine, torch.cos(torch.acos(cosine.clamp(-1.0, 1.0)) + self.m))


class _Mark(torch.autograd.Function):
    """The loss as it is; its backward leaves a mark in `weight.grad`."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, weight: Tensor, module: "PartialFC_V2") -> Tensor:
        ctx.module = module
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        ctx.module._begin_backward()
        return upstream[0], ctx.module._mark(), None


class PartialFC_V2(nn.Module):  # noqa: N801  their name
    """Margin softmax over all classes, or a sample of them, whose rows follow `opt.step()`.

    Args:
        margin_loss: their CombinedMarginLoss, ArcFace or CosFace, or anything with the same
            attributes; or a margin of this library, whose scale is `scale`.
        embedding_size: D.
        num_classes: N.
        sample_rate: share of the classes that take part in a step.
        fp16: matrix products of bfloat16 factors. (Theirs are float16, which cannot hold exp(64).)
        scale: of all logits, where `margin_loss` has none.
        seed: of first values and draws; None is torch's, as `torch.manual_seed` set it. Of several
            ranks that of the first.

    Attributes:
        weight: [N, D], class c in row c, in torch's default dtype; of several ranks [num_local, D],
            from class `class_start` on. Rows that have missed steps are brought up to date by
            `flush` and by `state_dict`.
        num_local, class_start: the classes here, as theirs.

    Raises:
        ConfigError: a margin that it has no counterpart for; fewer classes than ranks.
    """

    weight: nn.Parameter

    def __init__(
        self,
        margin_loss: object,
        embedding_size: int,
        num_classes: int,
        sample_rate: float = 1.0,
        fp16: bool = False,
        *,
        scale: float = 64.0,
        seed: SupportsInt | None = None,
    ) -> None:
        super().__init__()
        ranks = Ranks()
        if num_classes < ranks.size:
            raise ConfigError(
                f"{_NAME} of {num_classes} classes cannot be shared by {ranks.size} ranks"
            )
        margin, scale, negatives = translated(margin_loss, scale=scale)
        self.embedding_size, self.sample_rate, self.fp16 = embedding_size, sample_rate, fp16
        options: HeadOptions = {
            "scale": scale,
            "negatives": negatives,
            "optimizer": RowSGD(0.0, 0.0),  # until there is one to follow
            "seed": _seed(seed, ranks),
            "dtype": torch.get_default_dtype(),
            "operands": torch.bfloat16 if fp16 else None,
            "ranks": ranks,
        }
        head = _make_head(num_classes, embedding_size, margin, sample_rate, options)
        self.num_local, self.class_start = len(head.shard), head.shard.start
        self._holder = (head,)  # not a submodule: `weight` is all there is to move and to save
        self._optimizer: weakref.ref[Optimizer] | None = None
        self._is_marked = False
        self.weight = nn.Parameter(head.centers.weight)
        self.weight.register_post_accumulate_grad_hook(_weakly(self._end_backward))  # type: ignore[no-untyped-call]
        self.register_state_dict_pre_hook(_flush)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_start_anew)  # type: ignore[no-untyped-call]
        handle = register_optimizer_step_pre_hook(_weakly(self._before_step))
        weakref.finalize(self, handle.remove)

    @property
    def head(self) -> CenterHead:
        """The head that does the work, its rows on the memory of `weight`."""
        (head,) = self._holder
        weight = self.weight
        if head.centers.weight.data_ptr() != weight.data_ptr():  # moved to another device
            head.centers.weight = weight.detach()
            head.to(weight.device)
        return head

    def forward(self, local_embeddings: Tensor, local_labels: Tensor) -> Tensor:
        """Mean loss of a batch, scalar.

        Args:
            local_embeddings: [B, D], any floating dtype; of several ranks this one's part.
            local_labels: integer [B] or [B, 1], in [0, N).
        """
        labels = local_labels.reshape(-1).to(local_embeddings.device)
        loss: Tensor = self.head(local_embeddings, labels)
        if not loss.requires_grad:
            return loss
        marked: Tensor = _Mark.apply(loss, self.weight, self)  # type: ignore[no-untyped-call]
        return marked

    def flush(self) -> None:
        """Bring all rows of `weight`, and their momentum, up to date."""
        with torch.no_grad():
            self.head.centers.flush()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refused: a copy would not be the one that optimizers move."""
        raise TypeError(f"{_NAME} cannot be copied or pickled: save its state_dict() instead")

    def _mark(self) -> Tensor:
        weight = self.weight
        values = torch.zeros_like(weight[:1])
        values[:, 0] = 1.0
        index = torch.zeros(1, 1, dtype=torch.int64, device=weight.device)
        return torch.sparse_coo_tensor(
            index, values, weight.shape, check_invariants=False, is_coalesced=True
        )

    def _begin_backward(self) -> None:
        """Forget gradients whose mark was taken away since the last backward."""
        if self._is_marked and not _is_mark(self.weight.grad):
            self.head.zero_grad()
            self._is_marked = False

    def _end_backward(self, weight: Tensor) -> None:
        weight.grad, self._is_marked = self._mark(), True

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, *_: object) -> None:
        """Move the rows if they are the optimizer's and have a gradient."""
        weight = self.weight
        group = next((g for g in optimizer.param_groups if _holds(g["params"], weight)), None)
        if group is None or weight.grad is None:
            return
        mark, weight.grad = weight.grad, None
        if not _is_mark(mark):  # zeroed in place
            return
        factor = float(mark._values()[0, 0])
        if _is_plain_sgd(optimizer, group):
            self._follow(optimizer, group["momentum"], group["weight_decay"])
            self.head.step(float(group["lr"]), grad_scale=1.0 / factor)
        else:
            weight.grad = self._dense_gradient(factor)

    def _follow(self, optimizer: Optimizer, momentum: float, weight_decay: float) -> None:
        """Row steps with these constants, and with the momentum in the optimizer's state."""
        centers, rule = self.head.centers, self.head.centers.optimizer
        is_new = self._optimizer is None or self._optimizer() is not optimizer
        if is_new:
            self._optimizer = weakref.ref(optimizer)
            optimizer.register_state_dict_pre_hook(lambda _: self.flush())
            optimizer.register_load_state_dict_pre_hook(lambda *_: self.flush())
        assert isinstance(rule, RowSGD)  # noqa: S101  made in this file
        if is_new or (momentum, weight_decay) != (rule.momentum, rule.weight_decay):
            mode: SGDMode = "lazy-exact" if self.sample_rate < 1.0 else "frozen"
            centers.change_optimizer(RowSGD(momentum, weight_decay, mode))
        if momentum > 0.0:
            state = optimizer.state[self.weight]
            if (
                saved := state.get("momentum_buffer")
            ) is not None and saved is not centers.velocity:
                centers.velocity.copy_(saved)
            state["momentum_buffer"] = centers.velocity

    def _dense_gradient(self, factor: float) -> Tensor:
        """The gradient of all rows [N, D], as autograd would give it; the step counts as made."""
        head = self.head
        found = head.row_gradients()
        head.centers.flush()
        head.num_steps += 1
        head.zero_grad()
        if found.ids is None:
            return found.values.mul_(factor)
        dense = torch.zeros_like(self.weight)
        return dense.index_copy_(0, found.ids, found.values.mul_(factor))


def translated(
    margin_loss: object, *, scale: float
) -> tuple[Margin, float, InterclassFilter | None]:
    """Margin, scale and rule for the negatives that do what `margin_loss` does.

    Their CombinedMarginLoss is ArcFace of m2 where m1 = 1 and m3 = 0, else CosFace of m3 alone: its
    m1 and m2 have no effect then.
    """
    if not hasattr(margin_loss, "s"):
        refuse_margin(margin_loss, head=_NAME)
        return cast(Margin, margin_loss), scale, None  # the head refuses what is none
    threshold = getattr(margin_loss, "interclass_filtering_threshold", 0.0)
    rule = InterclassFilter(threshold, action="zero") if threshold > 0 else None
    return _margin(margin_loss), float(margin_loss.s), rule


def _margin(theirs: object) -> Margin:
    names = ("m1", "m2", "m3", "margin", "m")
    found = {name: float(getattr(theirs, name)) for name in names if hasattr(theirs, name)}
    match found:
        case {"m1": 1.0, "m2": radians, "m3": 0.0} | {"margin": radians}:
            return UnguardedArcFace(radians)
        case {"m1": _, "m2": _, "m3": cosine} if cosine > 0.0:
            return CosFace(cosine)
        case {"m": cosine}:
            return CosFace(cosine)
    raise ConfigError(
        f"{_NAME} takes insightface's CombinedMarginLoss (m1 = 1 and m3 = 0, or m3 > 0), ArcFace "
        f"or CosFace, got {type(theirs).__name__} with {found}; a margin of manyface works too, "
        "such as CombinedMargin"
    )


def _seed(seed: SupportsInt | None, ranks: Ranks) -> int:
    """The same for all ranks: that of the first, by an all-gather of its digits."""
    mine = torch.initial_seed() if seed is None else int(seed)
    return int(ranks.say(str(mine), "seed")[0])


def _make_head(
    num_classes: int, dim: int, margin: Margin, sample_rate: float, options: HeadOptions
) -> CenterHead:
    """Full, or sampled one class at a time as theirs is; class c lies in row c."""
    head: CenterHead
    if sample_rate >= 1.0:
        head = FullFC(num_classes=num_classes, dim=dim, margin=margin, **options)
    else:
        head = PartialFC(
            num_classes=num_classes,
            dim=dim,
            margin=margin,
            sample_rate=sample_rate,
            block=1,
            **options,
        )
    head.row_order = RowOrder(num_classes, seed=head.seed, shuffled=False)
    return head


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """`method`, called while its object lives, but no reason for it to live."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: object) -> None:
        if (alive := reference()) is not None:
            alive(*arguments)

    return call


def _flush(module: PartialFC_V2, *_: object) -> None:
    module.flush()


def _start_anew(module: PartialFC_V2, *_: object) -> None:
    """Before a load: no row has missed a step, no gradient is waiting."""
    module.flush()
    module.weight.grad = None
    module.head.zero_grad()


def _is_mark(gradient: Tensor | None) -> bool:
    return gradient is not None and gradient.is_sparse and gradient._nnz() > 0


def _holds(parameters: list[Tensor], weight: Tensor) -> bool:
    return any(each is weight for each in parameters)


def _is_plain_sgd(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    variants = ("nesterov", "dampening", "maximize", "fused")
    return type(optimizer) is torch.optim.SGD and not any(group[name] for name in variants)

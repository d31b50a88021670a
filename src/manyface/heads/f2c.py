"""F2C: a probe net that learns, a gallery net that follows it, a pool of the gallery's features.

    f2c = F2C(net, DynamicClassPool(100_000, 512, margin=CosFace(0.4)), num_identities=1_000_000)
    for batch in dual_loader:  # two half batches; pairs of one identity stand face to face
        loss = f2c(batch)
        loss.backward()
        optimizer.step()  # of net.parameters()

Source: Wang et al., "An Efficient Training Approach for Very Large Scale Face Recognition", CVPR
2022, arXiv 2105.10375. Nothing of the size (identities x dim) exists; the index of the slots takes
4 bytes per identity. docs/f2c.md lists what differs from the authors' code, and why.

*Ranks.* Each rank gives its part of a dual batch, n pairs of images, n as it comes and perhaps 0;
pairs stand face to face within a part. The half batches of the step are the parts rank by rank,

    x = [x of rank 0, x of rank 1, ...]        y = [y of rank 0, y of rank 1, ...]

and one process that is given [x | y] computes the same. Plans are functions of all labels: every
rank makes the same ones, and keeps the same slots and ledger. The nets are replicated; batch norm
normalises each rank's part on its own. DistributedDataParallel may be put around the whole F2C: it
leaves the pool alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from manyface.backbones import AveragedNet
from manyface.base.errors import ConfigError, LabelError
from manyface.heads.announced import LABELS, tell
from manyface.heads.checks import (
    check_integer_labels,
    check_labels,
    check_table,
)
from manyface.heads.placement import Rule, SlotState
from manyface.heads.pool import ROWS, DynamicClassPool, take_own_rows
from manyface.heads.pool_plan import PoolPlanner, SlotLedger, StepPlan, check_passes
from manyface.heads.slots import Slots, check_slots
from manyface.parallel import Shard

GalleryNorm = Literal["batch", "average", "copy"]


class DualBatch(Protocol):
    """What F2C needs of a batch; of several ranks each has a part.

    Attributes:
        images: [2 n, 3, S, S], half batch x, then half batch y.
        labels: int64 [2 n], on the CPU.
        plan: of the step of all ranks, made ahead by a planner of this F2C from the half batches of
            all ranks (the labels are not read again); None, on all ranks: it is made when needed.
    """

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def plan(self) -> StepPlan | None: ...


class F2C(nn.Module):
    """Loss of dual-loader batches; moves gallery net and pool as it goes.

    Args:
        probe_net: images [B, 3, S, S] -> embeddings [B, D]; the net that is trained.
        pool: rows and loss.
        num_identities: labels are in [0, num_identities).
        decay: of the gallery net's moving average; the authors' code has 0.99.
        warmup: begin with a smaller decay (backbones/ema.py); the official code does not.
        gallery_norm: batch norm of the gallery net: of its own batch (official), or its averaged,
            or the probe net's running statistics.
        num_passes: 2 with roles swapped (pool_plan.py), or 1, which is half the work.
        rule: for several mentions of an identity, and evictions within a batch (slots.py).
        reduction: of the passes' losses; the official code sums.

    In its state `pool.slot_rows` is the rows of this rank's slots (`shards`); all else is the same
    on all ranks, but for statistics of batch norm.
    """

    def __init__(
        self,
        probe_net: nn.Module,
        pool: DynamicClassPool,
        *,
        num_identities: int,
        decay: float = 0.9,
        warmup: bool = True,
        gallery_norm: GalleryNorm = "batch",
        num_passes: int = 2,
        rule: Rule = "hits_first",
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if gallery_norm not in ("batch", "average", "copy") or reduction not in ("mean", "sum"):
            raise ConfigError(
                "expected gallery_norm 'batch', 'average' or 'copy' and reduction 'mean' or 'sum', "
                f"got {gallery_norm!r} and {reduction!r}"
            )
        check_slots(pool.num_slots, num_identities, rule)
        check_passes(num_passes)
        self.probe_net, self.pool, self.num_identities = probe_net, pool, num_identities
        buffers: Literal["average", "copy"] = "copy" if gallery_norm == "copy" else "average"
        self._average = AveragedNet(probe_net, decay=decay, buffers=buffers, warmup=warmup)
        self.gallery_net = self._average.net
        self.gallery_norm, self.num_passes, self.rule = gallery_norm, num_passes, rule
        self.reduction = reduction
        self._ledger = SlotLedger(pool.num_slots)
        self._planner: PoolPlanner | None = None
        self._probe: Callable[[Tensor], Tensor] | None = None  # instead of calling the net
        self._has_followed = False  # the gallery net, in a step that ended in an error
        # Read by DistributedDataParallel, which would give all ranks the rows of the first.
        self._ddp_params_and_buffers_to_ignore = [*self.shards()]
        self.register_load_state_dict_pre_hook(_check_same_pool)  # type: ignore[no-untyped-call]

    @contextmanager
    def probing_by(self, probe: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside, `probe` is called for the probe net's embeddings: a wrapper of that net, such as
        DistributedDataParallel."""
        before, self._probe = self._probe, probe
        try:
            yield
        finally:
            self._probe = before

    def shards(self) -> dict[str, Shard]:
        """The tensors of `state_dict` of which this rank has some rows, [n, ...], and which."""
        return {"pool.slot_rows": self.pool.shard}

    def planner(self) -> PoolPlanner:
        """A planner of the steps that follow the last one trained."""
        slots = Slots(self.pool.num_slots, num_identities=self.num_identities, rule=self.rule)
        slots.restore(self._ledger.state())
        return PoolPlanner(
            slots,
            features=self.pool.features,
            num_passes=self.num_passes,
            num_changes=self._ledger.num_changes,
        )

    def forward(self, batch: DualBatch, *, follow: bool = True) -> Tensor:
        """Loss of a step, scalar.

        Args:
            batch: of the dual loader.
            follow: move the gallery net first; once per step, so not for further micro-batches.

        An error or interrupt leaves pool and slots as they were. If the gallery net had moved, it
        does not move again for the next batch, so that a refused batch may be left out.

        Of several ranks all get the same loss, that of the whole batch, and gradients that average
        over ranks to its gradient, as of `CenterHead`. What this class refuses on one rank is an
        error on all. Collectives: an all-gather of 24 bytes; one of 16 bytes for each pair of the
        fullest rank if there is no plan; in each pass those of `DynamicClassPool.write` and `loss`.

        Raises:
            LabelError: a label is no integer or out of range, or there is not one per image; or
                another rank has refused its part.
            NonFiniteError: an embedding holds NaN or infinity.
            ConfigError: the batch has an odd number of images, more identities than slots, or the
                plan of another step; or this module is in eval mode or not float32 or float64.
        """
        self._check_ready()
        _check_training(self.training)
        counts = self._counts(batch)
        if batch.plan is not None:
            self._planner = None  # it does not know of this step
            return self._step(batch.images, batch.plan, counts, follow=follow)
        x, y = self._all_labels(batch.labels, counts)
        with self._own_planner() as planner:
            plan = planner.plan(x.numpy(), y.numpy())
            return self._step(batch.images, plan, counts, follow=follow)

    @torch.no_grad()
    def prefill(self, images: Tensor, labels: Tensor) -> None:
        """Bring identities into the pool without a loss: an optional pass before the first step.

        The gallery net does not move. The least recently used identities make room as ever, so
        what comes last stays longest.

        Of several ranks each gives its part; they come rank by rank. Collectives: all-gathers of 16
        bytes, of 8 bytes a label, and of the features.

        Args:
            images: [n, 3, S, S], one of each identity.
            labels: int64 [n]; of all ranks at most as many identities as slots.

        Raises:
            LabelError: a label is out of range, or there is not one per image.
            NonFiniteError: an embedding holds NaN or infinity.
            ConfigError: more identities than slots. Pool and slots are as before, after any error.
        """
        self._check_ready()

        def measure() -> tuple[int]:
            check_labels(labels, num_classes=self.num_identities, batch=len(images))
            return (len(labels),)

        ranks = self.pool.ranks
        counts = [count for (count,) in tell(measure, length=1, ranks=ranks)]
        everyone = self._labels_of_all(labels, counts)
        with self._own_planner() as planner:
            plan, change = planner.prefill(everyone.numpy())
            self.pool.write(plan, self._features(images), counts)
            self._ledger.apply(change)

    def get_extra_state(self) -> dict[str, Tensor]:
        """State of the slots after the last step trained; changes of the pool and the gallery."""
        state = self._ledger.state()
        return {
            "identities": torch.from_numpy(state.identities),
            "order": torch.from_numpy(state.order),
            "next_rows": torch.from_numpy(state.next_rows),
            "num_changes": torch.tensor(self._ledger.num_changes),
            "num_updates": torch.tensor(self._average.num_updates),
            "has_followed": torch.tensor(self._has_followed),
        }

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `get_extra_state`."""
        # Older states lack two; the updates will do to tell plans from before this load.
        num_changes = int(state.get("num_changes", state["num_updates"]))
        self._ledger.restore(_slot_state(state), num_changes=num_changes)
        self._average.num_updates = int(state["num_updates"])
        self._has_followed = bool(state.get("has_followed", False))
        self._planner = None

    def _check_ready(self) -> None:
        check_table(self.pool.slot_rows, ROWS)

    def _counts(self, batch: DualBatch) -> list[int]:
        """Pairs of each rank; raises on all ranks if one refuses its part, or has another plan."""

        def measure() -> tuple[int, int]:
            _check_batch(batch)
            x, _ = _halves(batch.images)
            if batch.plan is not None:
                return len(x), batch.plan.number + 1
            check_integer_labels(batch.labels)
            _check_one_label_per_image(len(batch.labels), len(batch.images))
            if not self.pool.ranks.is_alone:
                check_labels(batch.labels, num_classes=self.num_identities)
            return len(x), 0

        told = tell(measure, length=2, ranks=self.pool.ranks)
        counts, plans = [count for count, _ in told], [number for _, number in told]
        if len(set(plans)) > 1:
            raise ConfigError(
                f"the ranks' batches have plans of steps {plans} of the pool (0: none), expected "
                "the same on all: give every rank the batches of the same step, planned or not"
            )
        _check_size(2 * sum(counts))
        return counts

    def _labels_of_all(self, labels: Tensor, counts: list[int]) -> Tensor:
        """int64 on the CPU, rank by rank, of `counts` labels each."""
        ranks = self.pool.ranks
        mine = labels.to("cpu" if ranks.is_alone else ranks.talks_on, torch.int64)
        return ranks.gather(mine, counts, LABELS).wait().cpu()

    def _all_labels(self, labels: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
        """Half batches of labels of all ranks, which have `counts` pairs."""
        sizes = [2 * count for count in counts]
        everyone = self._labels_of_all(labels, sizes)
        parts = [_halves(part) for part in torch.split(everyone, sizes)]
        x, y = zip(*parts, strict=True)
        return torch.cat(x), torch.cat(y)

    @contextmanager
    def _own_planner(self) -> Iterator[PoolPlanner]:
        """Of batches that come without a plan; kept, since making one takes O(identities).

        Not after an error, for it has gone ahead then.
        """
        planner = self._planner or self.planner()
        self._planner = None
        yield planner
        self._planner = planner

    def _step(self, images: Tensor, plan: StepPlan, counts: list[int], *, follow: bool) -> Tensor:
        _check_one_label_per_image(plan.passes[0].num_probes * 2, 2 * sum(counts))
        self._ledger.check_next(plan)
        passes = self._passes(_halves(images), follow=follow)
        losses = self.pool.losses(plan, passes, counts)
        self._ledger.apply(plan.change)
        self._has_followed = False
        total = torch.stack(losses).sum()
        return total / len(losses) if self.reduction == "mean" else total

    def _passes(
        self, halves: tuple[Tensor, Tensor], *, follow: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Embeddings of the probe and features of the gallery, roles swapped in the second pass."""
        for number, (probe, gallery) in enumerate((halves, halves[::-1])):
            embeddings = (self._probe or self.probe_net)(probe)
            if follow and number == 0 and not self._has_followed:
                self._average.update(self.probe_net)
                self._has_followed = True
            yield embeddings, self._features(gallery)

    def _features(self, images: Tensor) -> Tensor:
        """The gallery net's embeddings, any length, [n, D]."""
        with torch.no_grad():
            self.gallery_net.train(self.gallery_norm == "batch")
            features: Tensor = self.gallery_net(images)
        return features


def _check_training(training: bool) -> None:
    if not training:
        raise ConfigError(
            "F2C is in eval mode, and a step would move pool and gallery net: expected f2c.train() "
            "before it; call f2c.probe_net to embed images"
        )


def _check_batch(batch: object) -> None:
    missing = [name for name in ("images", "labels", "plan") if not hasattr(batch, name)]
    if missing:
        raise ConfigError(
            "F2C expects a batch with images, labels and plan, as DualLoader.batches() has them, "
            f"got {type(batch).__name__} without {', '.join(missing)}"
        )


def _halves(values: Tensor) -> tuple[Tensor, Tensor]:
    size = values.shape[0]
    if size % 2:
        _check_size(size)
    return values[: size // 2], values[size // 2 :]


def _check_size(size: int) -> None:
    if size % 2 or size == 0:
        raise ConfigError(f"a dual batch is two half batches of equal size, got {size} images")


def _check_one_label_per_image(num_labels: int, num_images: int) -> None:
    if num_labels != num_images:
        raise LabelError(f"expected one label per image: {num_images} images, {num_labels} labels")


def _slot_state(state: dict[str, Tensor]) -> SlotState:
    return SlotState(*(state[name].cpu().numpy() for name in ("identities", "order", "next_rows")))


def _check_same_pool(module: F2C, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Refuse the state of another pool before anything is loaded."""
    take_own_rows(module.pool, state, f"{prefix}pool.")
    if (extra := state.get(f"{prefix}_extra_state")) is not None:
        sizes = {"num_slots": module.pool.num_slots, "num_identities": module.num_identities}
        _slot_state(extra).check(**sizes)

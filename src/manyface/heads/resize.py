"""More or fewer identities: a new head goes on with the centers of a trained one.

    new = PartialFC(num_classes=old.num_classes + len(means), ...)   # as the old one otherwise
    grow(new, old.state_dict(), means)                               # ids 0 ... N - 1 stay

    new = PartialFC(num_classes=old.num_classes - len(ids), ...)
    renumbered = drop(new, old.state_dict(), ids)                    # int64 [N], -1 where dropped

In one process: checkpoints of any number of ranks load into it, and its own on any number.

The state may be that of a living head, or be read from a checkpoint (`load(path)` in checkpoint/),
whose tensors are mapped: then one table is in memory. Who stays keeps center and optimizer state
bit for bit, decay that is still to be made up included, wherever rows lie and however they are
shuffled; the number of steps goes on, and with it bias corrections and all draws. The new head's
seed is its own. Which identity an id of the data means is for the caller to keep in step.

Only the direction of a center matters to the softmax, its length says how fast it turns. So a new
identity starts at the direction of its mean embedding and at the median length of those there, as
if it had been trained as long; its momentum or moments are 0.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from manyface.base.errors import CheckpointError, ConfigError, NonFiniteError
from manyface.base.numeric import unit_rows
from manyface.centers.lazy import TOUCHED
from manyface.heads.base import CenterHead
from manyface.heads.checks import check_labels
from manyface.heads.row_order import RowLayout, RowOrder
from manyface.heads.start import put_rows

_TABLE = "centers."
_ROWS_AT_A_TIME = 2**14
_LENGTHS = 2**16  # centers whose lengths the median is of

State = Mapping[str, Tensor]


def mean_directions(embeddings: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Mean of the unit embeddings of each class, brought to length 1: [num_classes, D].

    Args:
        embeddings: [B, D], of a net in eval mode.
        labels: integer [B] in [0, num_classes), each of them at least once.

    Raises:
        LabelError: a label is no integer or out of range.
        ConfigError: a class has no embedding, or its embeddings cancel out.
    """
    check_labels(labels, num_classes=num_classes, batch=len(embeddings))
    unit, _ = unit_rows(embeddings)
    sums = unit.new_zeros(num_classes, unit.shape[1]).index_add_(0, labels.to(torch.int64), unit)
    return _directions(sums)


def grow(head: CenterHead, state: State, means: Tensor) -> None:
    """Fill `head` with the classes of `state`, [0, N), and new ones, [N, N + M).

    Args:
        head: of N + M classes, with the dim, dtype and optimizer of the old one.
        state: `state_dict()` of the old head.
        means: [M, D], mean embedding of each new class; only the direction counts.

    Raises:
        ConfigError: the heads do not fit, or a mean has no direction; several ranks.
        NonFiniteError: a mean holds NaN or infinity.
    """
    _check_alone(head)
    old = _rows_of(state)
    if means.ndim != 2 or means.shape[1] != old.shape[1]:
        raise ConfigError(f"means must be [M, {old.shape[1]}], got {list(means.shape)}")
    starts = _directions(means.detach().to(torch.float32))
    _fill(head, state, kept=torch.arange(len(old)), starts=starts)


def drop(head: CenterHead, state: State, ids: Tensor) -> Tensor:
    """Fill `head` with the classes of `state` but for `ids`; those left close ranks.

    Args:
        head: of N - len(ids) classes, with the dim, dtype and optimizer of the old one.
        state: `state_dict()` of the old head.
        ids: integer [M], distinct, in [0, N).

    Returns:
        int64 [N]: the new id of each old class, -1 for those that are dropped.

    Raises:
        LabelError: an id is no integer or out of range.
        ConfigError: an id stands twice, or the heads do not fit; several ranks.
    """
    _check_alone(head)
    num_classes = len(_rows_of(state))
    check_labels(ids, num_classes=num_classes, batch=len(ids))
    stays = torch.ones(num_classes, dtype=torch.bool)
    stays[ids.cpu().to(torch.int64)] = False
    if int(stays.sum()) != num_classes - len(ids):
        raise ConfigError("an id to drop stands twice: give each once (torch.unique)")
    _fill(head, state, kept=stays.nonzero().squeeze(1), starts=None)
    return torch.where(stays, stays.cumsum(0) - 1, -1)


def _fill(head: CenterHead, state: State, *, kept: Tensor, starts: Tensor | None) -> None:
    """Classes `kept` (int64 [K]) of `state` become [0, K); `starts` [M, D], unit rows, the rest."""
    new_classes = 0 if starts is None else len(starts)
    _check_fits(head, state, expected=len(kept) + new_classes)
    seed, num_steps = state["_extra_state"][:2].tolist()
    layout = RowLayout.of(state["_extra_state"])
    order = RowOrder(len(_rows_of(state)), seed=seed % 2**64, shuffled=layout.is_shuffled)
    for first in range(0, len(kept), _ROWS_AT_A_TIME):
        classes = kept[first : first + _ROWS_AT_A_TIME]
        rows = head.row_order(torch.arange(first, first + len(classes)))
        for name, stored in head.centers.named_buffers():
            values = state[_TABLE + name]
            put_rows(stored, rows, values[order(classes).to(values.device)])
    if starts is not None:
        length = _typical_length(_rows_of(state))
        _start(head, len(kept), starts * length, num_steps=num_steps)
    _take_counts(head, state)


def _start(head: CenterHead, first: int, centers: Tensor, *, num_steps: int) -> None:
    """New classes from `first` on, at `centers` [M, D], with no past."""
    rows = head.row_order(torch.arange(first, first + len(centers)))
    for name, stored in head.centers.named_buffers():
        if name == "weight":
            put_rows(stored, rows, centers)
        else:  # a row that is up to date includes all steps so far
            past = num_steps if name == TOUCHED else 0
            put_rows(stored, rows, stored.new_full((len(rows), *stored.shape[1:]), past))


def _take_counts(head: CenterHead, state: State) -> None:
    """Steps, missed steps and running averages of `state`; the seed and the order are `head`'s."""
    own, old = head.get_extra_state(), state["_extra_state"].cpu()
    head.set_extra_state(torch.cat([own[:1], old[1:2], own[2:3], old[3:]]))
    averages = state.get("averages._extra_state")
    if head.averages is not None and averages is not None:
        head.averages.set_extra_state(averages)  # type: ignore[arg-type]
    head.zero_grad()


def _rows_of(state: State) -> Tensor:
    if not {"_extra_state", _TABLE + "weight"} <= state.keys():
        raise CheckpointError(
            f"expected the state_dict of a head with class centers, got {sorted(state)[:5]}; of a "
            "checkpoint it is the group head"
        )
    return state[_TABLE + "weight"]


def _typical_length(rows: Tensor) -> float:
    """Median length of the rows [N, D] as they are stored, or of a part of them spread evenly."""
    some = rows[:: -(-len(rows) // _LENGTHS)].to(torch.float32)
    return float(torch.linalg.vector_norm(some, dim=1).median())


def _directions(means: Tensor) -> Tensor:
    """Unit rows of `means` [M, D]."""
    if not bool((finite := torch.isfinite(means).all(dim=1)).all()):
        raise NonFiniteError(f"the mean embedding {_first(~finite)} holds NaN or infinity")
    unit, inverse = unit_rows(means)
    if bool((inverse == 0).any()):
        raise ConfigError(
            f"the mean embedding {_first(inverse.squeeze(1) == 0)} has length 0, so no direction: "
            "give each new class an image or more"
        )
    return unit


def _first(found: Tensor) -> int:
    return int(found.nonzero()[0])


def _check_alone(head: CenterHead) -> None:
    if not head.ranks.is_alone:
        raise ConfigError(
            f"expected one process, got {head.ranks.size} that share the class centers: grow or "
            "drop in one process and save; a checkpoint loads on any number of ranks"
        )


def _check_fits(head: CenterHead, state: State, *, expected: int) -> None:
    for sub_centers in (head.sub_centers, RowLayout.of(state["_extra_state"]).sub_centers):
        if sub_centers > 1:
            raise ConfigError(
                f"expected one center per class, got sub_centers={sub_centers}: such heads cannot "
                "grow or drop classes yet"
            )
    if head.num_classes != expected:
        raise ConfigError(
            f"expected a head of {expected} classes, got one of {head.num_classes}; make it anew "
            "with that number"
        )
    buffers = {_TABLE + name: stored for name, stored in head.centers.named_buffers()}
    old = {name: values for name, values in state.items() if name.startswith(_TABLE)}
    kinds, old_kinds = ({n: (v.dtype, *v.shape[1:]) for n, v in t.items()} for t in (buffers, old))
    if kinds != old_kinds:
        raise ConfigError(
            f"expected a head whose centers are {old_kinds}, as the old one's, got {kinds}; take "
            "the same dim, dtype and optimizer"
        )

"""Heads of several sets on 1 to 3 ranks, against one process and against the loss by hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from processes import on_ranks, outcomes
from torch import Tensor

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.centers import RowAdamW, RowSGD
from manyface.heads import SeveralHeads
from manyface.margins import AdaFace
from manyface.parallel import ALONE, Ranks

DIM, STEPS, CLASSES = 5, 3, (7, 4, 12)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


@dataclass(frozen=True)
class Case:
    """`counts` are the samples of each rank; of `only` these heads, if not of all."""

    counts: tuple[int, ...]
    only: tuple[int, ...] = (0, 1, 2)
    accumulates: bool = False


@dataclass(frozen=True)
class Trained:
    losses: list[float]
    gradients: list[Tensor]
    rows: dict[str, Tensor]
    shards: dict[str, tuple[int, int]]
    sent: dict[str, int]


def make_heads(ranks: Ranks) -> SeveralHeads:
    """Each of another kind."""
    shared: dict[str, Any] = {"dim": DIM, "dtype": torch.float64, "ranks": ranks, "chunk_size": 8}
    return SeveralHeads(
        [
            mf.FullFC(num_classes=CLASSES[0], margin=mf.CosFace(0.4), scale=16.0, seed=1, **shared),
            mf.PartialFC(
                num_classes=CLASSES[1],
                margin=AdaFace(t_alpha=0.3),
                sample_rate=0.5,
                seed=2,
                optimizer=RowSGD(0.9, 5e-4, "lazy-exact"),
                **shared,
            ),
            mf.PartialFC(
                num_classes=CLASSES[2],
                margin=mf.ArcFace(0.5),
                sample_rate=0.3,
                seed=3,
                optimizer=RowAdamW(weight_decay=0.1),
                **shared,
            ),
        ]
    )


def batch(case: Case, step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    size = sum(case.counts)
    first = [sum(CLASSES[:head]) for head in case.only]
    classes = torch.cat(
        [torch.arange(CLASSES[h]) + f for h, f in zip(case.only, first, strict=True)]
    )
    labels = classes[torch.randint(len(classes), (size,), generator=draw)]
    return 4 * torch.randn(size, DIM, generator=draw, dtype=torch.float64), labels


def train(case: Case) -> Trained:
    return _train(case, Ranks())


def train_alone(case: Case) -> Trained:
    return _train(Case((sum(case.counts),), case.only, case.accumulates), ALONE)


def flat(heads: SeveralHeads) -> dict[str, Tensor]:
    """Copies of the tensors of a state; running averages lie deeper in it."""
    state = heads.state_dict()
    averages = state.pop("heads.1.averages._extra_state")["margin"]
    return {name: value.clone() for name, value in {**state, **averages}.items()}


def _train(case: Case, ranks: Ranks) -> Trained:
    heads = make_heads(ranks)
    first = sum(case.counts[: ranks.rank])
    mine = slice(first, first + case.counts[ranks.rank])
    losses, gradients = [], []
    for step in range(STEPS):
        for part in range(1 + case.accumulates):
            embeddings, labels = batch(case, 10 * step + part)
            x, given = embeddings[mine].clone().requires_grad_(), labels[mine]
            heads.announce(given)
            loss = heads(x, given)
            loss.backward()
            losses.append(loss.item())
            assert x.grad is not None
            gradients.append(x.grad / ranks.size)
        heads.step(0.3)
    for head in heads.heads:
        head.centers.flush()
    return Trained(
        losses,
        gradients,
        flat(heads),
        {name: (shard.start, shard.stop) for name, shard in heads.shards().items()},
        dict(ranks.sent),
    )


@pytest.mark.parametrize("counts", [(9,), (5, 4), (0, 7, 3), (1, 1, 9)], ids=str)
@pytest.mark.parametrize("options", [{}, {"only": (1,)}, {"only": (0, 2)}, {"accumulates": True}])
def test_any_number_of_ranks_gives_the_same(counts: tuple[int, ...], options: Any) -> None:
    case = Case(counts, **options)
    found, alone = on_ranks(train, len(counts), case), train_alone(case)
    for rank in found:
        torch.testing.assert_close(rank.losses, alone.losses, **TOLERANCE)
    for number, expected in enumerate(alone.gradients):
        together = torch.cat([rank.gradients[number] for rank in found])
        torch.testing.assert_close(together, expected, **TOLERANCE)
    for name, expected in alone.rows.items():
        if name in found[0].shards:
            assert found[-1].shards[name][1] == len(expected)
            together = torch.cat([rank.rows[name] for rank in found])
            torch.testing.assert_close(together, expected, **TOLERANCE)
        else:
            for rank in found:
                torch.testing.assert_close(rank.rows[name], expected, **TOLERANCE)


def by_hand(embeddings: Tensor, labels: Tensor, centers: Sequence[Tensor]) -> Tensor:
    """The mean over samples of each one's CosFace loss among its own head's classes."""
    losses, first = [], 0
    for rows in centers:
        here = (labels >= first) & (labels < first + len(rows))
        cosines = torch.nn.functional.normalize(embeddings[here]) @ (
            torch.nn.functional.normalize(rows).T
        )
        own = torch.nn.functional.one_hot(labels[here] - first, len(rows))
        logits = 16.0 * (cosines - 0.4 * own.to(cosines))
        losses.append(
            torch.nn.functional.cross_entropy(logits, labels[here] - first, reduction="sum")
        )
        first += len(rows)
    return torch.stack(losses).sum() / len(labels)


def test_the_loss_is_the_mean_over_samples_in_their_own_heads() -> None:
    options: dict[str, Any] = {
        "dim": DIM, "dtype": torch.float64, "margin": mf.CosFace(0.4), "scale": 16.0,
        "momentum": 0.0, "weight_decay": 0.0, "ranks": ALONE,
    }  # fmt: skip
    heads = SeveralHeads([mf.FullFC(num_classes=n, seed=n, **options) for n in CLASSES])
    embeddings, labels = batch(Case((10,)), 1)
    centers = [
        head.class_centers(torch.arange(n)).requires_grad_()
        for head, n in zip(heads.heads, CLASSES, strict=True)
    ]
    theirs = embeddings.clone().requires_grad_()
    expected = by_hand(theirs, labels, centers)
    expected.backward()
    mine = embeddings.clone().requires_grad_()
    loss = heads(mine, labels)
    loss.backward()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(mine.grad, theirs.grad, **TOLERANCE)
    heads.step(0.5)
    for head, rows in zip(heads.heads, centers, strict=True):
        moved = head.class_centers(torch.arange(len(rows)))
        assert rows.grad is not None
        torch.testing.assert_close(moved, rows.detach() - 0.5 * rows.grad, **TOLERANCE)


def test_labels_travel_once() -> None:
    sent = on_ranks(train, 2, Case((3, 2)))[0].sent
    assert sent["counts"] == STEPS * 16
    assert sent["labels"] == STEPS * 8 * 3


def refuse(_: None) -> None:
    heads, ranks = make_heads(Ranks()), Ranks()
    labels = torch.tensor([0, 22 + ranks.rank])  # 23 classes
    heads(torch.randn(2, DIM), labels)


def test_a_label_out_of_range_ends_all_ranks() -> None:
    (_, zero), (_, one) = outcomes(refuse, 2, None)
    assert "label 23 at position 1" in one
    assert "rank 1 has refused" in zero


def test_an_empty_batch_and_what_does_not_fit() -> None:
    heads = make_heads(ALONE)
    empty = torch.zeros(0, DIM, dtype=torch.float64, requires_grad=True)
    loss = heads(empty, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
    heads.step(0.1)
    with pytest.raises(ConfigError, match="at least one"):
        SeveralHeads([])


def test_a_state_comes_back() -> None:
    one, two = make_heads(ALONE), make_heads(ALONE)
    for step in range(2):
        embeddings, labels = batch(Case((8,)), step)
        one(embeddings.requires_grad_(), labels).backward()
        one.step(0.3)
    two.load_state_dict(one.state_dict())
    losses = []
    for heads in (one, two):
        embeddings, labels = batch(Case((8,)), 5)
        loss = heads(embeddings.requires_grad_(), labels)
        loss.backward()
        heads.step(0.3)
        losses.append(loss.item())
    assert losses[0] == losses[1]
    other = flat(two)
    for name, value in flat(one).items():
        assert torch.equal(value, other[name]), name

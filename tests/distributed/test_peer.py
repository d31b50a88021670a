"""Heads on several ranks against insightface's: the published formula transcribed, and their code.

MANYFACE_INSIGHTFACE=DIR names a checkout of insightface.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
import torch
from processes import on_ranks, outcomes
from torch import Tensor, nn

import manyface as mf
from manyface.bench import arcface_torch
from manyface.compat.insightface import PartialFC_V2, translated
from manyface.margins import ArcFace, CosFace, Margin
from manyface.parallel import Ranks
from manyface.testing.partial_fc_v2 import MarginNumbers, step_on_ranks

CLASSES, DIM, BATCH, SCALE = 23, 6, 5, 16.0
CHECKOUT = os.environ.get("MANYFACE_INSIGHTFACE")
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
MARGINS: dict[str, Margin] = {
    "exact": ArcFace(0.5),
    "straight_through": ArcFace(0.5, gradient="straight_through"),
    "cosface": CosFace(0.4),
}


@dataclass(frozen=True)
class Step:
    """Loss, gradient of this rank's embeddings, gradient of its rows, and the rows."""

    loss: Tensor
    embeddings: Tensor
    rows: Tensor
    weight: Tensor


def batch_of(rank: int, step: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(100 * step + rank)
    embeddings = torch.randn(BATCH, DIM, generator=draw, dtype=torch.float64)
    return embeddings, torch.randint(CLASSES, (BATCH,), generator=draw)


def step_of_ours(head: mf.FullFC) -> Step:
    embeddings, labels = batch_of(head.ranks.rank)
    embeddings.requires_grad_()
    loss = head(embeddings, labels)
    loss.backward()
    assert embeddings.grad is not None
    weight = head.centers.weight.clone()
    return Step(loss.detach(), embeddings.grad, head.row_gradients().values, weight)


def ours(name: str) -> Step:
    return step_of_ours(_full(MARGINS[name], SCALE))


def _full(margin: Margin, scale: float, **options: Any) -> mf.FullFC:
    return mf.FullFC(
        num_classes=CLASSES,
        dim=DIM,
        margin=margin,
        scale=scale,
        dtype=torch.float64,
        chunk_size=4,
        **options,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MARGINS)
def test_loss_and_every_gradient_are_those_of_the_published_formula(name: str, size: int) -> None:
    found = on_ranks(ours, size, name)
    embeddings, labels = zip(*(batch_of(rank) for rank in range(size)), strict=True)
    expected = step_on_ranks(
        embeddings,
        labels,
        torch.cat([rank.weight for rank in found]),
        margin=MARGINS[name],
        scale=SCALE,
    )
    for rank, each in enumerate(found):
        torch.testing.assert_close(each.loss, expected.loss, **TOLERANCE)
        torch.testing.assert_close(each.embeddings, expected.embeddings[rank], **TOLERANCE)
        torch.testing.assert_close(each.rows, expected.rows[rank], **TOLERANCE)


def test_both_gradients_of_arcface_differ() -> None:
    one, other = (on_ranks(ours, 2, name)[0] for name in ("exact", "straight_through"))
    torch.testing.assert_close(one.loss, other.loss)
    assert not torch.allclose(one.rows, other.rows, rtol=1e-3)
    assert not torch.allclose(one.embeddings, other.embeddings, rtol=1e-3)


# --- their code, unchanged but for what has no GPU ------------------------------------------------

needs_checkout = pytest.mark.skipif(
    CHECKOUT is None, reason="MANYFACE_INSIGHTFACE names no checkout"
)
NUMBERS = {
    "arcface": MarginNumbers(s=SCALE),
    "cosface": MarginNumbers(s=SCALE, m2=0.0, m3=0.4),
    "filtered": MarginNumbers(s=SCALE, m2=0.3, interclass_filtering_threshold=0.2),
}


@contextmanager
def in_float64() -> Iterator[None]:
    """They make tensors of the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with arcface_torch._without_cuda():
            yield
    finally:
        torch.set_default_dtype(before)


def make_theirs(numbers: MarginNumbers, rate: float, weight: Tensor) -> nn.Module:
    folder = arcface_torch.find_folder(CHECKOUT)
    margin = arcface_torch._load(folder / "losses.py", "CombinedMarginLoss")
    head = arcface_torch._load(folder / "partial_fc_v2.py", "PartialFC_V2")
    found: nn.Module = head(margin(**vars(numbers)), DIM, CLASSES, rate, False)
    found.load_state_dict({"weight": weight})
    return found


def ours_and_theirs(name: str) -> tuple[Step, Step]:
    numbers = NUMBERS[name]
    with in_float64():
        margin, scale, negatives = translated(numbers, scale=1.0)
        head = _full(margin, scale, negatives=negatives)
        theirs = make_theirs(numbers, 1.0, head.centers.weight)
        embeddings, labels = batch_of(head.ranks.rank)
        embeddings.requires_grad_()
        loss = theirs(embeddings, labels)
        loss.backward()
        assert embeddings.grad is not None
        (weight,) = theirs.parameters()
        assert weight.grad is not None
        return step_of_ours(head), Step(
            loss.detach(), embeddings.grad, weight.grad, weight.detach()
        )


@needs_checkout
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", NUMBERS)
def test_loss_and_every_gradient_are_those_of_the_checkout(name: str, size: int) -> None:
    for one, other in on_ranks(ours_and_theirs, size, name):
        torch.testing.assert_close(vars(one), vars(other), **TOLERANCE)


# --- the drop-in ----------------------------------------------------------------------------------

Trained = tuple[list[float], Tensor, Tensor]  # losses, this rank's rows, backbone


def train_loop(head: Any, sample: Any = None, *, steps: int = 8, dense: bool = False) -> Trained:
    """Their training loop: one optimizer of backbone and rows; backbones averaged as by DDP."""
    ranks = Ranks()
    backbone = nn.Linear(DIM, DIM, bias=False)
    with torch.no_grad():
        backbone.weight.copy_(torch.eye(DIM))
    groups = [{"params": backbone.parameters()}, {"params": head.parameters()}]
    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.05}
    optimizer = torch.optim.SGD(groups, nesterov=dense, **options)
    losses = []
    for step in range(steps):
        images, labels = batch_of(ranks.rank, step)
        with sample(ranks, labels) if sample else _nothing():
            loss = head(backbone(images), labels.clone())
        loss.backward()
        assert backbone.weight.grad is not None
        ranks.sum_(backbone.weight.grad, "as DDP does").div_(ranks.size)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    weight = head.state_dict()["weight"]
    return losses, weight.clone(), backbone.weight.detach()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def dropped_in(rate: float, dense: bool) -> Trained:
    with in_float64():
        torch.manual_seed(Ranks().rank)  # they agree on the first one's
        return train_loop(PartialFC_V2(NUMBERS["arcface"], DIM, CLASSES, rate), dense=dense)


def restated_alone(rate: float, size: int, dense: bool) -> Trained:
    """The drop-in in one process on the batches of all ranks, which test_insightface.py compares
    with dense SGD."""
    with in_float64(), patch(f"{__name__}.batch_of", make_whole(size)):
        head = PartialFC_V2(NUMBERS["arcface"], DIM, CLASSES, rate, seed=0)
        return train_loop(head, dense=dense)


def make_whole(size: int) -> Any:
    """`batch_of` of all ranks together."""
    of_rank = batch_of

    def whole(rank: int, step: int = 0) -> tuple[Tensor, Tensor]:
        images, labels = zip(*(of_rank(each, step) for each in range(size)), strict=True)
        return torch.cat(images), torch.cat(labels)

    return whole


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("rate", "dense"), [(1.0, False), (0.4, False), (0.4, True)])
def test_the_drop_in_trains_on_ranks_as_in_one_process(rate: float, dense: bool, size: int) -> None:
    found, alone = on_ranks(dropped_in, size, rate, dense), restated_alone(rate, size, dense)
    for losses, _, backbone in found:
        assert losses == pytest.approx(alone[0], rel=1e-10)
        torch.testing.assert_close(backbone, alone[2], **TOLERANCE)
    torch.testing.assert_close(torch.cat([rows for _, rows, _ in found]), alone[1], **TOLERANCE)


def drop_in_and_theirs(name: str, rate: float) -> tuple[Trained, Trained]:
    numbers = NUMBERS[name]
    with in_float64():
        first = PartialFC_V2(numbers, DIM, CLASSES, rate, seed=3)
        theirs = make_theirs(numbers, rate, first.weight.detach())
        draws = iter_samples(PartialFC_V2(numbers, DIM, CLASSES, rate, seed=3), theirs)
        return train_loop(first), train_loop(theirs, draws if rate < 1 else None)


def iter_samples(ours: PartialFC_V2, theirs: Any) -> Any:
    """Their draw, the largest of num_local random numbers, falls on the classes that ours draws."""

    @contextmanager
    def sample(ranks: Ranks, labels: Tensor) -> Iterator[None]:
        everyone = ranks.gather(labels, [BATCH] * ranks.size, "labels of the sample").wait()
        index = ours.head.select(everyone).ids
        ours.head.num_steps += 1
        assert index is not None
        theirs.num_sample = len(index)

        def rand(size: list[int]) -> Tensor:
            numbers = torch.zeros(size)
            numbers[index] = 1.0
            return numbers

        with patch.object(torch, "rand", rand):
            yield

    return sample


@needs_checkout
@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("name", NUMBERS)
def test_the_drop_in_trains_on_two_ranks_as_the_checkout(name: str, rate: float) -> None:
    for one, other in on_ranks(drop_in_and_theirs, 2, name, rate):
        assert one[0] == pytest.approx(other[0], rel=1e-9)
        torch.testing.assert_close(one[1:], other[1:], rtol=1e-9, atol=1e-10)


def of_two_classes() -> PartialFC_V2:
    return PartialFC_V2(NUMBERS["arcface"], DIM, 2)


def test_fewer_classes_than_ranks_are_refused_by_the_drop_in() -> None:
    for is_right, text in outcomes(of_two_classes, 3):
        assert not is_right
        assert "2 classes cannot be shared by 3 ranks" in text

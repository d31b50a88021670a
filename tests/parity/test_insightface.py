"""The drop-in for PartialFC_V2 trains as theirs: a restatement, and a checkout if there is one.

MANYFACE_INSIGHTFACE=DIR names a checkout of insightface.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, distributed, nn

from manyface.bench import arcface_torch
from manyface.compat.insightface import PartialFC_V2
from manyface.testing.partial_fc_v2 import DensePartialFC, MarginNumbers

CLASSES, DIM, BATCH = 41, 9, 13
CHECKOUT = os.environ.get("MANYFACE_INSIGHTFACE")
MARGINS = {
    "arcface": MarginNumbers(),
    "cosface": MarginNumbers(m2=0.0, m3=0.4),
    "m3 alone counts": MarginNumbers(m2=0.5, m3=0.2),
    "filtered": MarginNumbers(s=16.0, m2=0.3, interclass_filtering_threshold=0.2),
    "filtered cosface": MarginNumbers(s=16.0, m2=0.0, m3=0.3, interclass_filtering_threshold=0.1),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "no momentum": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=5e-2),
    "no decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}
# Class centers as short as at the start turn wildly at a learning rate of 0.1, which float32 can be
# compared over 30 steps only without; the decay is large, to be seen.
GENTLE = partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=0.5)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Loop:
    """Their training loop around a head: one optimizer of backbone and head, a schedule."""

    def __init__(self, head: nn.Module, make: Callable[..., torch.optim.Optimizer]) -> None:
        torch.manual_seed(5)
        self.backbone, self.head = nn.Linear(DIM, DIM), head
        groups = [{"params": self.backbone.parameters()}, {"params": head.parameters()}]
        self.optimizer = make(groups)
        self.schedule = torch.optim.lr_scheduler.PolynomialLR(self.optimizer, 40)

    def step(self, images: Tensor, labels: Tensor, *index: Tensor | None) -> Tensor:
        loss = self.head(self.backbone(images), labels, *index)
        loss.backward()
        nn.utils.clip_grad_norm_(self.backbone.parameters(), 5)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return loss.detach()


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(11)
    for _ in range(count):
        yield (
            torch.randn(BATCH, DIM, generator=draw),
            torch.randint(CLASSES, (BATCH,), generator=draw),
        )


def sample(head: PartialFC_V2, labels: Tensor) -> Tensor | None:
    """The classes of the next step."""
    return head.head.select(labels).ids


def compare(ours: Loop, restated: Loop, *, steps: int, **tolerance: float) -> None:
    for images, labels in batches(steps):
        index = sample(ours.head, labels)  # type: ignore[arg-type]
        expected = restated.step(images, labels, index)
        torch.testing.assert_close(ours.step(images, labels), expected, **tolerance)
    ours.head.flush()  # type: ignore[operator]
    torch.testing.assert_close(ours.head.weight, restated.head.weight, **tolerance)
    for one, other in zip(ours.backbone.parameters(), restated.backbone.parameters(), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def pair(
    numbers: MarginNumbers, rate: float, make: Callable[..., torch.optim.Optimizer]
) -> tuple[Loop, Loop]:
    head = PartialFC_V2(numbers, DIM, CLASSES, rate, False, seed=3)
    return Loop(head, make), Loop(DensePartialFC(numbers, head.weight), make)


@pytest.mark.parametrize("rate", [1.0, 0.4, 0.1])
@pytest.mark.parametrize("numbers", MARGINS.values(), ids=MARGINS.keys())
def test_thirty_steps_are_those_of_dense_sgd(numbers: MarginNumbers, rate: float) -> None:
    compare(*pair(numbers, rate, OPTIMIZERS["sgd"]), steps=30, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_thirty_steps_in_float32(rate: float) -> None:
    with default_dtype(torch.float32):
        compare(*pair(MarginNumbers(), rate, GENTLE), steps=30, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_any_optimizer(make: Callable[..., torch.optim.Optimizer], rate: float) -> None:
    compare(*pair(MarginNumbers(), rate, make), steps=12, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_gradients_of_one_batch(rate: float) -> None:
    ours, restated = pair(MarginNumbers(), rate, OPTIMIZERS["adamw"])
    ((images, labels),) = batches(1)
    one, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    index = sample(ours.head, labels)  # type: ignore[arg-type]
    ours.head(one, labels).backward()
    restated.head(other, labels, index).backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    ours.optimizer.step()  # AdamW is handed the dense gradient
    expected = restated.head.weight.grad
    torch.testing.assert_close(ours.head.weight.grad, expected, rtol=1e-9, atol=1e-12)


@contextmanager
def their_sample(index: Tensor | None) -> Iterator[None]:
    """Their draw, the largest of N random numbers, falls on `index`."""

    def rand(size: list[int]) -> Tensor:
        numbers = torch.zeros(size)
        numbers[index] = 1.0
        return numbers

    with patch.object(torch, "rand", rand), arcface_torch._without_cuda():
        yield


class Theirs(nn.Module):
    """The class of the checkout, whose labels are columns, with the sample imposed."""

    def __init__(self, numbers: MarginNumbers, weight: Tensor, rate: float) -> None:
        super().__init__()
        folder = arcface_torch.find_folder(CHECKOUT)
        margin = arcface_torch._load(folder / "losses.py", "CombinedMarginLoss")
        head = arcface_torch._load(folder / "partial_fc_v2.py", "PartialFC_V2")
        self.inner = head(margin(**vars(numbers)), DIM, CLASSES, rate, False)
        self.inner.load_state_dict({"weight": weight})

    @property
    def weight(self) -> Tensor:
        return self.inner.weight

    def forward(self, embeddings: Tensor, labels: Tensor, index: Tensor | None) -> Tensor:
        with their_sample(index):
            return self.inner(embeddings, labels.clone())


@pytest.mark.filterwarnings("ignore:.*torch.cuda.amp:FutureWarning")  # theirs
@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
@pytest.mark.skipif(CHECKOUT is None, reason="MANYFACE_INSIGHTFACE names no checkout")
@pytest.mark.parametrize("rate", [1.0, 0.4])
@pytest.mark.parametrize("numbers", MARGINS.values(), ids=MARGINS.keys())
def test_thirty_steps_are_those_of_the_checkout(numbers: MarginNumbers, rate: float) -> None:
    with default_dtype(torch.float32):  # they make tensors of that
        arcface_torch._join_group()
        try:
            numbers = replace(numbers, s=min(numbers.s, 32.0))  # their losses end at 69
            head = PartialFC_V2(numbers, DIM, CLASSES, rate, False, seed=3)
            loops = [Loop(each, GENTLE) for each in (head, Theirs(numbers, head.weight, rate))]
            compare(*loops, steps=30, rtol=1e-4, atol=1e-5)
        finally:
            distributed.destroy_process_group()

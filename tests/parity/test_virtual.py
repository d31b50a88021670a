"""Virtual FC against a slow restatement, with conflicts, borrowed anchors and their return."""

import pytest
import torch
from torch import Tensor

from manyface.base.errors import ConfigError, LabelError
from manyface.base.random import numpy_generator, torch_generator
from manyface.heads.virtual import VirtualFC, assign_anchors
from manyface.margins import AdaFace, CosFace, MagFace
from manyface.softmax.dense import dense_margin_softmax

DIM = 6


class SlowVirtual:
    """One dictionary of anchors; identities in ascending order."""

    def __init__(self, num_anchors: int) -> None:
        self.num_anchors = num_anchors
        self.rows: dict[int, Tensor] = {}

    def loss(self, embeddings: Tensor, labels: list[int]) -> Tensor:
        kept = dict(self.rows)
        anchor_of: dict[int, int] = {}
        borrowed = []
        owned = {label % self.num_anchors for label in labels}
        for label in sorted(set(labels)):
            anchor = label % self.num_anchors
            if anchor in anchor_of.values():
                anchor = min(set(range(self.num_anchors)) - owned - set(anchor_of.values()))
                borrowed.append(anchor)
            anchor_of[label] = anchor
            mine = [
                e / e.norm() for e, name in zip(embeddings, labels, strict=True) if name == label
            ]
            total = torch.stack(mine).sum(0).detach()
            self.rows[anchor] = total / total.norm()
        anchors = sorted(self.rows)
        targets = torch.tensor([anchors.index(anchor_of[label]) for label in labels])
        rows = torch.stack([self.rows[anchor] for anchor in anchors])
        loss = dense_margin_softmax(embeddings, rows, targets, margin=CosFace(0.3), scale=8)
        for anchor in borrowed:
            self.rows.pop(anchor)
            if anchor in kept:
                self.rows[anchor] = kept[anchor]
        return loss


@pytest.mark.parametrize("num_anchors", [7, 20])
def test_equals_the_slow_restatement(num_anchors: int):
    generator, values = numpy_generator(num_anchors, "vfc"), torch_generator(num_anchors, "vfc")
    head = VirtualFC(
        num_classes=100,
        num_anchors=num_anchors,
        dim=DIM,
        margin=CosFace(0.3),
        scale=8,
        chunk_size=4,
        dtype=torch.float64,
    )
    oracle = SlowVirtual(num_anchors)
    conflicts = 0
    for _ in range(60):
        labels = torch.from_numpy(generator.integers(0, 100, generator.integers(1, 8)))
        x = torch.randn(len(labels), DIM, generator=values, dtype=torch.float64).requires_grad_()
        loss, expected = head(x, labels), oracle.loss(x, labels.tolist())
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        found, wanted = (torch.autograd.grad(each, x)[0] for each in (loss, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
        conflicts += int(assign_anchors(labels, num_anchors=num_anchors).borrowed.sum())
    assert conflicts > 5
    assert head.is_filled.nonzero().flatten().tolist() == sorted(oracle.rows)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="num_anchors <= num_classes"):
        VirtualFC(num_classes=3, num_anchors=4, dim=2, margin=CosFace())
    head = VirtualFC(num_classes=30, num_anchors=2, dim=DIM, margin=CosFace())
    with pytest.raises(ConfigError, match="3 identities, Virtual FC 2 anchors"):
        head(torch.randn(3, DIM), torch.tensor([1, 2, 3]))
    with pytest.raises(LabelError):
        head(torch.randn(1, DIM), torch.tensor([30]))
    with pytest.raises(ConfigError, match="Virtual FC keeps no running averages"):
        VirtualFC(num_classes=30, num_anchors=2, dim=DIM, margin=AdaFace())
    with pytest.raises(ConfigError, match="Virtual FC does not train the length"):
        VirtualFC(num_classes=30, num_anchors=2, dim=DIM, margin=MagFace())


def test_an_empty_batch():
    head = VirtualFC(num_classes=30, num_anchors=2, dim=DIM, margin=CosFace())
    x = torch.randn(0, DIM).requires_grad_()
    head(x, torch.empty(0, dtype=torch.int64)).backward()
    assert x.grad.shape == (0, DIM)


@pytest.mark.parametrize("num_anchors", [7, 300])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_a_narrow_dtype(dtype: torch.dtype, num_anchors: int):
    embeddings = torch.randn(6, DIM, generator=torch_generator(0, "narrow"))
    labels = torch.tensor([0, 1, 2, 100, 101, 1])
    one, other = (
        VirtualFC(num_classes=1000, num_anchors=num_anchors, dim=DIM, margin=CosFace())
        for _ in range(2)
    )
    assert one(embeddings, labels.to(dtype)).item() == other(embeddings, labels).item()
    assert torch.equal(one.rows, other.rows)


@pytest.mark.parametrize("without", ["eval mode", "gradients"])
def test_validation_leaves_the_anchors(without: str):
    head, twin = (
        VirtualFC(num_classes=30, num_anchors=7, dim=DIM, margin=CosFace()) for _ in range(2)
    )
    x = torch.randn(2, 4, DIM, generator=torch_generator(0, "eval"))
    for each in (head, twin):
        each(x[0], torch.tensor([0, 1, 8, 8]))
    rows, is_filled = head.rows.clone(), head.is_filled.clone()
    labels = torch.tensor([0, 2, 9, 9])
    with torch.set_grad_enabled(without != "gradients"):
        loss = head.train(without != "eval mode")(x[1], labels)
    assert torch.equal(head.rows, rows)
    assert torch.equal(head.is_filled, is_filled)
    assert loss.item() == twin(x[1], labels).item()


def test_a_step_as_of_other_heads():
    head = VirtualFC(num_classes=30, num_anchors=7, dim=DIM, margin=CosFace())
    head.step(0.1, grad_scale=1024.0)


def test_float16_embeddings_longer_than_float16_can_say():
    head, twin = (
        VirtualFC(num_classes=30, num_anchors=7, dim=DIM, margin=CosFace()) for _ in range(2)
    )
    x, labels = torch.full((2, DIM), 6e4, dtype=torch.float16), torch.arange(2)
    assert head(x, labels).item() == twin(x.float(), labels).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_anchors_of_half_precision(dtype: torch.dtype):
    head = VirtualFC(num_classes=30, num_anchors=7, dim=DIM, margin=CosFace()).to(dtype)
    with pytest.raises(ConfigError, match=f"anchors must be float32 or float64, got {dtype}"):
        head(torch.randn(2, DIM), torch.arange(2))


def test_labels_in_a_list_and_counts_that_are_none():
    head = VirtualFC(num_classes=30, num_anchors=7, dim=DIM, margin=CosFace())
    with pytest.raises(LabelError, match="tensor of integers, got list"):
        head(torch.randn(2, DIM), [0, 1])
    with pytest.raises(ConfigError, match=r"num_anchors must be a whole number .* got 7.0"):
        VirtualFC(num_classes=30, num_anchors=7.0, dim=DIM, margin=CosFace())

"""Centers and operands in bfloat16: the same head, as exact as 8 bits allow."""

import pytest
import torch
from torch import Tensor

import manyface as mf
from manyface.heads import CenterHead
from manyface.softmax import dense_margin_softmax
from manyface.softmax.rows import TensorRows
from manyface.softmax.streamed import row_gradients, streamed_forward

BATCH, DIM, CLASSES = 48, 64, 700
SCALE, MARGIN = 64.0, mf.CosFace(0.3)


def problem() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    rows = torch.randn(CLASSES, DIM, generator=draw) * 0.01
    targets = torch.randint(CLASSES, (BATCH,), generator=draw)
    embeddings = torch.randn(BATCH, DIM, generator=draw) + 100 * rows[targets]
    return embeddings, rows, targets


def error(got: Tensor, truth: Tensor) -> float:
    return float((got.double() - truth).norm() / truth.norm())


def truth(embeddings: Tensor, rows: Tensor, targets: Tensor) -> list[Tensor]:
    x, w = (each.double().clone().requires_grad_() for each in (embeddings, rows))
    loss = dense_margin_softmax(x, w, targets, margin=MARGIN, scale=SCALE)
    return [loss.detach(), *torch.autograd.grad(loss, (x, w))]


def autocast(embeddings: Tensor, rows: Tensor, targets: Tensor) -> list[Tensor]:
    x, w = embeddings.clone().requires_grad_(), rows.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = dense_margin_softmax(x, w, targets, margin=MARGIN, scale=SCALE)
    return [loss.detach(), *torch.autograd.grad(loss, (x, w))]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept_bytes", [0, 2**30])
def test_gradients_are_as_good_as_those_of_autocast(stored: torch.dtype, kept_bytes: int) -> None:
    embeddings, rows, targets = problem()
    rows = rows.to(stored).float()  # what a table in that dtype holds
    exact = truth(embeddings, rows, targets)
    found = streamed_forward(
        embeddings,
        TensorRows(rows.to(stored)),
        targets,
        margin=MARGIN,
        scale=SCALE,
        chunk_size=100,
        operands=torch.bfloat16,
        kept_bytes=kept_bytes,
    )
    chunks = [chunk.clone() for _, _, chunk in row_gradients(found.residual, TensorRows(rows))]
    got = [found.loss, found.embedding_gradient, torch.cat(chunks)]
    plain = autocast(embeddings, rows, targets)
    for ours, theirs, expected in zip(got, plain, exact, strict=True):
        assert ours.dtype == torch.float32
        assert error(ours, expected) <= error(theirs, expected)
        assert error(ours, expected) < 0.02


def head(kind: type[CenterHead], **options: object) -> CenterHead:
    shared = {"num_classes": CLASSES, "dim": DIM, "margin": MARGIN, "scale": 16.0}
    return kind(**shared, dtype=torch.bfloat16, chunk_size=90, **options)  # type: ignore[arg-type]


def train(one: CenterHead, steps: int = 4) -> list[Tensor]:
    losses = []
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        embeddings = torch.randn(BATCH, DIM, generator=draw, requires_grad=True)
        loss = one(embeddings, torch.randint(CLASSES, (BATCH,), generator=draw))
        loss.backward()
        one.step(0.1)
        losses.append(loss.detach())
    return losses


def test_rate_one_equals_full_bit_for_bit() -> None:
    full, partial = head(mf.FullFC), head(mf.PartialFC, sample_rate=1.0)
    assert train(full) == train(partial)
    assert torch.equal(full.centers.weight, partial.centers.weight)
    assert torch.equal(full.centers.velocity, partial.centers.velocity)
    assert full.centers.velocity.dtype == torch.bfloat16


def test_kept_numerators_equal_those_computed_again() -> None:
    kept, again = head(mf.FullFC, kept_bytes=2**30), head(mf.FullFC, kept_bytes=0)
    assert train(kept) == train(again)
    assert torch.equal(kept.centers.weight, again.centers.weight)


def test_steps_smaller_than_half_a_bit_are_not_lost() -> None:
    """Rounding to nearest would leave every row where it is."""
    one = head(mf.FullFC, momentum=0.0, weight_decay=0.0)
    exact = mf.FullFC(
        num_classes=CLASSES, dim=DIM, margin=MARGIN, scale=16.0, momentum=0.0, weight_decay=0.0
    )
    first = one.centers.weight.clone()
    exact.centers.weight.copy_(first.float())
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.randn(BATCH, DIM, generator=draw)
    labels = torch.randint(CLASSES, (BATCH,), generator=draw)
    for each in (one, exact):
        for _ in range(60):
            each(embeddings.clone().requires_grad_(), labels).backward()
            each.step(2e-5)
    moved = one.centers.weight.double() - first.double()
    expected = exact.centers.weight.double() - first.double()
    pulled = labels.unique()  # by far the largest moves
    along = (moved[pulled] * expected[pulled]).sum() / expected[pulled].square().sum()
    assert float(along) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_very_short_rows(dtype: torch.dtype) -> None:
    """E / |w| would overflow: such rows are lengthened for the products."""
    embeddings, rows, targets = problem()
    rows[::3] *= 1e-14
    x, w = embeddings.to(dtype), rows.to(dtype)
    exact = truth(x, w, targets)
    found = streamed_forward(x, TensorRows(w), targets, margin=MARGIN, scale=SCALE, chunk_size=100)
    chunks = [chunk.clone() for _, _, chunk in row_gradients(found.residual, TensorRows(w))]
    for got, expected in zip(
        (found.loss, found.embedding_gradient, torch.cat(chunks)), exact, strict=True
    ):
        assert error(got, expected) < (1e-5 if dtype == torch.float32 else 1e-12)

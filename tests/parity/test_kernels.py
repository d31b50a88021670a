"""Heads on kernels against the same heads on plain torch: loss and every gradient."""

import pytest
import torch
from languages import LANGUAGES, Language, language_or_skip

import manyface as mf
from manyface.centers import RowSGD, table
from manyface.kernels import Choice
from manyface.kernels import rows as rows_of_kernels
from manyface.softmax import chunks, streamed_margin_softmax

# batch, rows, dim, chunk: odd, larger than a tile, chunks of one class, one class in all
SHAPES = [(7, 23, 11, 9), (3, 130, 33, 70), (5, 4, 3, 1), (4, 1, 5, 8)]


TORCH = Choice("torch", "asked for by a test")


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    return language_or_skip(request.param)


def take(monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    for room in (chunks, table, rows_of_kernels):
        monkeypatch.setattr(room, "choose", lambda *_: choice)


@pytest.mark.parametrize("batch, rows, dim, chunk", SHAPES)
@pytest.mark.parametrize("scale, smoothing", [(16.0, 0.0), (100.0, 0.0), (16.0, 0.1)])  # 100: shift
def test_loss_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
    language: Language,
    batch: int,
    rows: int,
    dim: int,
    chunk: int,
    scale: float,
    smoothing: float,
) -> None:
    draw = torch.Generator().manual_seed(batch)
    embeddings = torch.randn(batch, dim, generator=draw).to(language.device).requires_grad_()
    centers = torch.randn(rows, dim, generator=draw)
    if rows > 1:  # else its gradient is 0, by cancellation
        centers[0] *= 1e-6  # a short one
    centers = centers.to(language.device).requires_grad_()
    targets = torch.randint(rows, (batch,), generator=draw).to(language.device)
    found = []
    for choice in (TORCH, language.choice):
        take(monkeypatch, choice)
        loss = streamed_margin_softmax(
            embeddings,
            centers,
            targets,
            margin=mf.ArcFace(0.3),
            scale=scale,
            label_smoothing=smoothing,
            chunk_size=chunk,
        )
        found.append((loss, *torch.autograd.grad(loss, (embeddings, centers))))
    for plain, by_kernel in zip(*found, strict=True):
        size = float(plain.detach().abs().max())
        torch.testing.assert_close(by_kernel, plain, rtol=1e-4, atol=1e-5 * size + 1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("mode, momentum", [("frozen", 0.9), ("lazy-exact", 0.9), ("frozen", 0.0)])
def test_steps(
    monkeypatch: pytest.MonkeyPatch,
    language: Language,
    dtype: torch.dtype,
    rate: float,
    mode: str,
    momentum: float,
) -> None:
    draw = torch.Generator().manual_seed(2)
    results = []
    data = [
        (torch.randn(6, 12, generator=draw), torch.randint(29, (6,), generator=draw))
        for _ in range(3)
    ]
    for choice in (TORCH, language.choice):
        take(monkeypatch, choice)
        head = mf.PartialFC(
            num_classes=29,
            dim=12,
            margin=mf.CosFace(0.2),
            scale=16.0,
            sample_rate=rate,
            optimizer=RowSGD(momentum, 0.05, mode),
            chunk_size=10,
            dtype=dtype,
            device=language.device,
        )
        losses = []
        for embeddings, labels in data:
            loss = head(embeddings.to(language.device), labels.to(language.device))
            loss.backward()
            head.step(0.01)
            losses.append(loss.detach())
        head.centers.flush()
        results.append((torch.stack(losses), *(v.float() for v in head.centers.buffers())))
    for plain, by_kernel in zip(*results, strict=True):
        # Of bfloat16, few numbers may be rounded the other way: one part in 128.
        tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
        size = float(plain.abs().max())
        torch.testing.assert_close(by_kernel, plain, rtol=tolerance, atol=tolerance * size)

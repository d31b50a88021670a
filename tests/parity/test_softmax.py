"""Streamed against the dense oracle: the loss and every gradient, at odd shapes."""

from dataclasses import dataclass

import pytest
import torch
from margins_table import MARGINS, NORM_MARGINS, RULES
from torch import Tensor

import manyface as mf
from manyface.base.errors import ConfigError, LabelError
from manyface.softmax import dense_margin_softmax, streamed_margin_softmax
from manyface.softmax.streamed import needs_shift


@dataclass(frozen=True)
class Shape:
    batch: int
    dim: int
    classes: int
    chunk: int


SHAPES = [
    Shape(37, 17, 101, 10),
    Shape(8, 16, 64, 64),
    Shape(5, 3, 7, 1),  # one class a chunk
    Shape(13, 8, 31, 1000),  # chunk larger than the classes
    Shape(1, 12, 29, 5),  # batch of one
    Shape(6, 5, 1, 4),  # one class
    Shape(1, 1, 1, 1),
    Shape(64, 2, 3, 2),
]


def problem(shape: Shape, dtype: torch.dtype, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(shape.batch, shape.dim, generator=draw, dtype=torch.float64) * 3
    rows = torch.randn(shape.classes, shape.dim, generator=draw, dtype=torch.float64) * 0.01
    targets = torch.randint(shape.classes, (shape.batch,), generator=draw)
    # As in training: some embeddings lie close to their own center.
    embeddings[::3] += 500 * rows[targets[::3]]
    return embeddings.to(dtype).requires_grad_(), rows.to(dtype).requires_grad_(), targets


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss * 1.7, inputs)]


def relative_error(got: Tensor, truth: Tensor) -> float:
    return float((got.double() - truth).norm() / truth.norm().clamp_min(1e-300))


@pytest.mark.parametrize("scale", [16.0, 64.0, 700.0, 3000.0])
@pytest.mark.parametrize("margin", MARGINS.values(), ids=MARGINS.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fp64_equals_dense(shape: Shape, margin: mf.Margin, scale: float) -> None:
    embeddings, rows, targets = problem(shape, torch.float64)
    dense = dense_margin_softmax(embeddings, rows, targets, margin=margin, scale=scale)
    streamed = streamed_margin_softmax(
        embeddings, rows, targets, margin=margin, scale=scale, chunk_size=shape.chunk
    )
    truth = gradients(dense, embeddings, rows)
    for got, expected in zip(gradients(streamed, embeddings, rows), truth, strict=True):
        # Absolute for gradients that are 0 (one class): the loss is O(scale).
        assert float((got - expected).norm()) <= 1e-10 * max(1.0, float(expected.norm()))


# The oracle again, with all that a loss can have. Rules raise logits: 600 needs the shift with one.
@pytest.mark.parametrize("scale", [16.0, 600.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rule", [None, *RULES])
@pytest.mark.parametrize("margin", [mf.ArcFace(0.5), *NORM_MARGINS.values()], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rules_smoothing_and_lengths_equal_dense(
    shape: Shape, margin: mf.Margin, rule: str | None, smoothing: float, scale: float
) -> None:
    embeddings, rows, targets = problem(shape, torch.float64)
    options = {
        "margin": margin,
        "scale": scale,
        "negatives": None if rule is None else RULES[rule],
        "label_smoothing": smoothing,
    }
    truth = gradients(dense_margin_softmax(embeddings, rows, targets, **options), embeddings, rows)
    streamed = streamed_margin_softmax(embeddings, rows, targets, **options, chunk_size=shape.chunk)
    for got, expected in zip(gradients(streamed, embeddings, rows), truth, strict=True):
        assert float((got - expected).norm()) <= 1e-10 * max(1.0, float(expected.norm()))


@pytest.mark.parametrize("scale", [32.0, 64.0, 150.0])
@pytest.mark.parametrize("margin", MARGINS.values(), ids=MARGINS.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fp32_is_as_good_as_eager_fp32(shape: Shape, margin: mf.Margin, scale: float) -> None:
    exact = problem(shape, torch.float32)
    embeddings, rows, targets = exact
    double = [tensor.detach().double().requires_grad_() for tensor in (embeddings, rows)]
    truth = gradients(
        dense_margin_softmax(double[0], double[1], targets, margin=margin, scale=scale), *double
    )
    eager = gradients(
        dense_margin_softmax(embeddings, rows, targets, margin=margin, scale=scale),
        embeddings,
        rows,
    )
    streamed = gradients(
        streamed_margin_softmax(
            embeddings, rows, targets, margin=margin, scale=scale, chunk_size=shape.chunk
        ),
        embeddings,
        rows,
    )
    # A cosine is rounded to 6e-8, which moves a probability by about scale * 6e-8 of itself.
    for name, got, plain, expected in zip(
        ("loss", "embeddings", "rows"), streamed, eager, truth, strict=True
    ):
        budget = 2.0 * relative_error(plain, expected) + 4e-7 * scale
        error = float((got.double() - expected).norm()) / max(float(expected.norm()), 1e-6)
        assert error <= budget, f"{name}: error {error:.1e}, budget {budget:.1e}"


def test_all_labels_equal() -> None:
    embeddings, rows, _ = problem(Shape(33, 8, 50, 7), torch.float64)
    targets = torch.full((33,), 49)
    results = [
        gradients(
            run(embeddings, rows, targets, margin=mf.ArcFace(0.5), scale=64.0), embeddings, rows
        )
        for run in (dense_margin_softmax, streamed_margin_softmax)
    ]
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_rows_and_embeddings_of_length_zero_get_no_gradient() -> None:
    embeddings, rows, targets = problem(Shape(9, 6, 20, 4), torch.float64)
    with torch.no_grad():
        embeddings[2] = 0
        rows[targets[5]] = 0
    for run in (dense_margin_softmax, streamed_margin_softmax):
        loss = run(embeddings, rows, targets, margin=mf.ArcFace(0.5), scale=64.0)
        of_embeddings, of_rows = torch.autograd.grad(loss, (embeddings, rows))
        assert bool(torch.isfinite(of_embeddings).all())
        assert bool(torch.isfinite(of_rows).all())
        assert bool((of_embeddings[2] == 0).all())
        assert bool((of_rows[targets[5]] == 0).all())


def test_empty_batch_is_zero_loss_and_zero_gradient() -> None:
    embeddings = torch.zeros(0, 4, requires_grad=True)
    rows = torch.randn(5, 4, requires_grad=True)
    targets = torch.zeros(0, dtype=torch.int64)
    for run in (dense_margin_softmax, streamed_margin_softmax):
        loss = run(embeddings, rows, targets, margin=mf.CosFace(0.4), scale=64.0)
        assert float(loss.detach()) == 0.0
        assert bool((torch.autograd.grad(loss, rows)[0] == 0).all())


def test_well_separated_target_keeps_its_negatives() -> None:
    """At cos_y = 0.999 and s = 64, Z - exp(s cos_y) would be 0 in fp32; the gradient is not."""
    rows = torch.eye(32)
    embeddings = rows[:4].clone()
    embeddings[:, 10] = 0.04
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = [embeddings.to(dtype).requires_grad_(), rows.to(dtype).requires_grad_()]
        loss = streamed_margin_softmax(
            *inputs, torch.arange(4), margin=mf.NormFace(), scale=64.0, chunk_size=5
        )
        results.append(gradients(loss, *inputs))
    for got, expected in zip(*results, strict=True):
        assert relative_error(got, expected) < 2e-5
        assert float(got.abs().max()) > 0


def test_shift_is_used_exactly_when_the_dtype_needs_it() -> None:
    assert not needs_shift(64.0, num_rows=100_000_000, dtype=torch.float32)
    assert needs_shift(80.0, num_rows=100_000_000, dtype=torch.float32)
    assert needs_shift(90.0, num_rows=10, dtype=torch.float32)
    assert not needs_shift(90.0, num_rows=10, dtype=torch.float64)


@pytest.mark.parametrize("margin", [mf.ArcFace(0.5), mf.CombinedMargin(1.3, 0.3, 0.2)], ids=str)
def test_gradients_against_finite_differences(margin: mf.Margin) -> None:
    embeddings, rows, targets = problem(Shape(4, 5, 6, 2), torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w: streamed_margin_softmax(x, w, targets, margin=margin, scale=8.0, chunk_size=2),
        (embeddings, (rows.detach() * 100).requires_grad_()),
    )


def check_fp32_is_as_good_as_eager(shape: Shape, *, slack: float, **options: object) -> None:
    embeddings, rows, targets = problem(shape, torch.float32)
    double = [tensor.detach().double().requires_grad_() for tensor in (embeddings, rows)]
    truth = gradients(dense_margin_softmax(*double, targets, scale=64.0, **options), *double)
    eager, streamed = (
        gradients(run(embeddings, rows, targets, scale=64.0, **options), embeddings, rows)
        for run in (dense_margin_softmax, streamed_margin_softmax)
    )
    for name, got, plain, expected in zip(
        ("loss", "embeddings", "rows"), streamed, eager, truth, strict=True
    ):
        error, budget = relative_error(got, expected), 1.3 * relative_error(plain, expected) + slack
        assert error <= budget, f"{name}: error {error:.1e}, budget {budget:.1e}"


@pytest.mark.parametrize("margin", MARGINS.values(), ids=MARGINS.keys())
def test_fp32_at_a_usual_size_is_as_good_as_eager(margin: mf.Margin) -> None:
    check_fp32_is_as_good_as_eager(Shape(128, 128, 4000, 512), slack=1e-7, margin=margin)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rule", [None, *RULES])
@pytest.mark.parametrize("margin", [mf.ArcFace(0.5), *NORM_MARGINS.values()], ids=str)
def test_fp32_rules_and_lengths_at_a_usual_size(
    margin: mf.Margin, rule: str | None, smoothing: float
) -> None:
    check_fp32_is_as_good_as_eager(
        Shape(64, 64, 1000, 300),
        slack=1e-6,
        margin=margin,
        negatives=None if rule is None else RULES[rule],
        label_smoothing=smoothing,
    )


@pytest.mark.parametrize("scale", [80.0, 86.0, 87.0, 88.0])
def test_scales_at_the_edge_of_the_range(scale: float) -> None:
    """All cosines are near -1: exp(-s) must not vanish in s / Z."""
    draw = torch.Generator().manual_seed(0)
    away = torch.randn(1, 6, generator=draw)
    inputs = (
        away + 0.1 * torch.randn(4, 6, generator=draw),
        -away + 0.1 * torch.randn(2, 6, generator=draw),
    )
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        targets = torch.tensor([0, 1, 0, 1])
        loss = streamed_margin_softmax(*leaves, targets, margin=mf.NormFace(), scale=scale)
        results.append(gradients(loss, *leaves))
    for got, expected in zip(*results, strict=True):
        assert relative_error(got, expected) < 2e-4


def test_targets_out_of_range_are_refused() -> None:
    embeddings, rows, targets = problem(Shape(3, 4, 5, 2), torch.float32)
    for wrong in (targets - 5, targets + 5):
        with pytest.raises(LabelError, match=r"targets must be in \[0, 5\)"):
            streamed_margin_softmax(embeddings, rows, wrong, margin=mf.NormFace(), scale=8.0)


@pytest.mark.parametrize("shape", [(1,), (4,), (3, 1), ()], ids=str)
def test_targets_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    embeddings, rows, _ = problem(Shape(3, 4, 5, 2), torch.float32)
    targets = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(LabelError, match=r"one target per embedding, shape \(3,\), got"):
        streamed_margin_softmax(embeddings, rows, targets, margin=mf.NormFace(), scale=8.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [SHAPES[0], Shape(64, 128, 1000, 300)], ids=str)
def test_bfloat16_rows_keep_the_target_in_float32(shape: Shape, dtype: torch.dtype) -> None:
    embeddings, rows, targets = problem(shape, torch.bfloat16)
    inputs = embeddings.detach().to(dtype).requires_grad_(), rows
    double = [each.detach().double().requires_grad_() for each in inputs]
    options = {"margin": mf.CosFace(0.4), "scale": 64.0}
    found = streamed_margin_softmax(*inputs, targets, **options, chunk_size=shape.chunk)
    truth = dense_margin_softmax(*double, targets, **options)
    assert found.dtype == torch.float32
    assert relative_error(found.detach(), truth.detach()) < 5e-4
    pairs = zip(gradients(found, *inputs), gradients(truth, *double), strict=True)
    assert all(relative_error(got, expected) < 2e-2 for got, expected in pairs)


def test_float16_rows_are_refused() -> None:
    embeddings, rows, targets = problem(SHAPES[0], torch.float16)
    with pytest.raises(ConfigError, match=r"float32, float64 or bfloat16, got torch\.float16"):
        streamed_margin_softmax(embeddings, rows, targets, margin=mf.NormFace(), scale=8.0)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_targets_of_any_integer_dtype(dtype: torch.dtype) -> None:
    embeddings, rows, targets = problem(SHAPES[0], torch.float32)
    options = {"margin": mf.CosFace(0.4), "scale": 16.0}
    found = streamed_margin_softmax(embeddings, rows, targets.to(dtype), **options)
    assert torch.equal(found, streamed_margin_softmax(embeddings, rows, targets, **options))
    with pytest.raises(LabelError, match=r"targets must be integers, got torch\.float32"):
        streamed_margin_softmax(embeddings, rows, targets.float(), **options)


@pytest.mark.parametrize("scale", [64.0, 80.0, 86.0])
def test_short_rows_at_large_scales(scale: float) -> None:
    """E / |w| stays finite: an embedding that is parallel to a short negative row."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(20, 8, generator=draw)) * 1.05e-4
    embeddings = rows[3:6].clone() * 1e4
    targets = torch.tensor([0, 1, 2])
    inputs = embeddings.requires_grad_(), rows.requires_grad_()
    options = {"margin": mf.CosFace(0.4), "scale": scale}
    found = streamed_margin_softmax(*inputs, targets, **options)
    truth = dense_margin_softmax(*(each.double() for each in inputs), targets, **options)
    for one, other in zip(gradients(found, *inputs), gradients(truth, *inputs), strict=True):
        assert relative_error(one, other.double()) < 1e-4

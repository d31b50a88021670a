"""Several centers a class (Sub-center ArcFace) in the streamed softmax and in heads, against the
oracle: loss, every gradient, training, resume."""

import copy

import pytest
import torch
from margins_table import NORM_MARGINS, RULES
from torch import Tensor, nn

import manyface as mf
from manyface.base.errors import ConfigError, LabelError
from manyface.heads import CenterHead
from manyface.margins import AdaFace, CurricularFace
from manyface.softmax import dense_margin_softmax, streamed_margin_softmax
from manyface.softmax.rows import TensorRows
from manyface.softmax.streamed import row_gradients, streamed_forward

# batch, dim, classes, sub-centers, rows a chunk
SHAPES = [
    (37, 17, 51, 2, 10),
    (9, 5, 23, 3, 7),  # a chunk is made of whole classes: 6 rows
    (5, 3, 7, 4, 1),  # less than a class: 4 rows
    (13, 8, 31, 3, 1000),
    (1, 12, 29, 2, 5),
    (6, 5, 1, 3, 4),  # one class
    (1, 1, 1, 2, 1),
]


def problem(
    batch: int, dim: int, classes: int, sub_centers: int, *, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch, dim, generator=draw, dtype=torch.float64) * 3
    rows = torch.randn(classes * sub_centers, dim, generator=draw, dtype=torch.float64) * 0.01
    targets = torch.randint(classes, (batch,), generator=draw)
    embeddings[::3] += 500 * rows[targets[::3] * sub_centers + sub_centers - 1]
    return embeddings.to(dtype).requires_grad_(), rows.to(dtype).requires_grad_(), targets


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss * 1.7, inputs)]


# 600 and 3000 need the shift, with a rule or without.
@pytest.mark.parametrize("scale", [16.0, 600.0, 3000.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rule", [None, *RULES])
@pytest.mark.parametrize("margin", [mf.ArcFace(0.5), *NORM_MARGINS.values()], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fp64_equals_dense(
    shape: tuple[int, ...], margin: mf.Margin, rule: str | None, smoothing: float, scale: float
) -> None:
    *sizes, sub_centers, chunk = shape
    embeddings, rows, targets = problem(*sizes, sub_centers)
    options = {
        "margin": margin,
        "scale": scale,
        "negatives": None if rule is None else RULES[rule],
        "label_smoothing": smoothing,
        "sub_centers": sub_centers,
    }
    truth = gradients(dense_margin_softmax(embeddings, rows, targets, **options), embeddings, rows)
    streamed = streamed_margin_softmax(embeddings, rows, targets, **options, chunk_size=chunk)
    for got, expected in zip(gradients(streamed, embeddings, rows), truth, strict=True):
        assert float((got - expected).norm()) <= 1e-10 * max(1.0, float(expected.norm()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rule", [None, *RULES])
def test_fp32_is_as_good_as_eager(rule: str | None, smoothing: float) -> None:
    embeddings, rows, targets = problem(64, 64, 400, 3, dtype=torch.float32)
    options = {
        "margin": mf.ArcFace(0.5),
        "scale": 64.0,
        "negatives": None if rule is None else RULES[rule],
        "label_smoothing": smoothing,
        "sub_centers": 3,
    }
    double = [tensor.detach().double().requires_grad_() for tensor in (embeddings, rows)]
    truth = gradients(dense_margin_softmax(*double, targets, **options), *double)
    eager, streamed = (
        gradients(run(embeddings, rows, targets, **options), embeddings, rows)
        for run in (dense_margin_softmax, streamed_margin_softmax)
    )
    for got, plain, exact in zip(streamed, eager, truth, strict=True):
        ours, theirs = (
            float((each.double() - exact).norm() / exact.norm()) for each in (got, plain)
        )
        assert ours <= 1.3 * theirs + 1e-6


def test_one_sub_center_is_none_bit_for_bit() -> None:
    embeddings, rows, targets = problem(9, 5, 23, 1)
    options = {"margin": mf.ArcFace(0.5), "scale": 64.0, "chunk_size": 4}
    plain = streamed_margin_softmax(embeddings, rows, targets, **options)
    one = streamed_margin_softmax(embeddings, rows, targets, sub_centers=1, **options)
    for first, second in zip(
        gradients(plain, embeddings, rows), gradients(one, embeddings, rows), strict=True
    ):
        assert torch.equal(first, second)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_of_equal_sub_centers_the_first_is_trained(smoothing: float) -> None:
    embeddings, rows, targets = problem(9, 5, 23, 1)
    twice = rows.detach().repeat_interleave(2, dim=0).requires_grad_()
    options = {"margin": mf.ArcFace(0.5), "scale": 64.0, "label_smoothing": smoothing}
    of_one = gradients(streamed_margin_softmax(embeddings, rows, targets, **options), rows)
    of_two = gradients(
        streamed_margin_softmax(embeddings, twice, targets, sub_centers=2, **options), twice
    )
    torch.testing.assert_close(of_two[0], of_one[0])
    torch.testing.assert_close(of_two[1][::2], of_one[1])
    assert not bool(of_two[1][1::2].any())


def test_rows_of_length_zero_get_no_gradient() -> None:
    embeddings, rows, targets = problem(9, 5, 23, 2)
    with torch.no_grad():
        rows[2 * targets[0]], rows[2 * targets[1] : 2 * targets[1] + 2] = 0, 0
    options = {"margin": mf.ArcFace(0.5), "scale": 64.0, "sub_centers": 2}
    found, truth = (
        gradients(run(embeddings, rows, targets, **options), embeddings, rows)
        for run in (streamed_margin_softmax, dense_margin_softmax)
    )
    for got, expected in zip(found, truth, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert not bool(found[2][2 * targets[1] : 2 * targets[1] + 2].any())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_kept_numerators_are_those_computed_again(smoothing: float) -> None:
    embeddings, rows, targets = (each.detach() for each in problem(9, 5, 23, 2))
    found = []
    for kept_bytes in (0, 2**20):
        result = streamed_forward(
            embeddings,
            TensorRows(rows),
            targets,
            margin=mf.CosFace(0.4),
            scale=64.0,
            label_smoothing=smoothing,
            sub_centers=2,
            chunk_size=6,
            kept_bytes=kept_bytes,
        )
        assert (result.residual.kept is not None) == (kept_bytes > 0)
        found.append(
            torch.cat([g.clone() for *_, g in row_gradients(result.residual, TensorRows(rows))])
        )
    assert torch.equal(*found)


def test_what_cannot_be_meant_is_refused() -> None:
    embeddings, rows, targets = problem(3, 4, 6, 1)
    with pytest.raises(ConfigError, match="whole number of sub_centers"):
        streamed_margin_softmax(
            embeddings, rows, targets, margin=mf.NormFace(), scale=8.0, sub_centers=4
        )
    with pytest.raises(LabelError, match=r"targets must be in \[0, 2\)"):
        streamed_margin_softmax(
            embeddings, rows, targets + 2, margin=mf.NormFace(), scale=8.0, sub_centers=3
        )
    with pytest.raises(ConfigError, match="sub_centers must be a whole number of at least 1"):
        mf.FullFC(num_classes=5, dim=4, margin=mf.NormFace(), sub_centers=0)


# --- heads ----------------------------------------------------------------------------------------

CLASSES, DIM, BATCH = 53, 11, 17
LOSSES: dict[str, dict[str, object]] = {
    "arcface": {"margin": mf.ArcFace(0.5)},
    "smoothing": {"margin": mf.CosFace(0.4), "label_smoothing": 0.1},
    "all": {
        "margin": AdaFace(t_alpha=0.3),
        "negatives": CurricularFace(t_alpha=0.3),
        "label_smoothing": 0.2,
    },
}


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return [
        (
            4 * torch.randn(BATCH, DIM, generator=draw, dtype=torch.float64),
            torch.randint(CLASSES, (BATCH,), generator=draw),
        )
        for _ in range(count)
    ]


def head(sample_rate: float | None, loss: str, **options: object) -> CenterHead:
    shared = {"num_classes": CLASSES, "dim": DIM, "scale": 20.0, "seed": 7, "chunk_size": 8}
    options = {
        **shared,
        "sub_centers": 3,
        "dtype": torch.float64,
        **copy.deepcopy(LOSSES[loss]),
        **options,
    }
    if sample_rate is None:
        return mf.FullFC(**options)  # type: ignore[arg-type]
    return mf.PartialFC(sample_rate=sample_rate, **options)  # type: ignore[arg-type]


def step(one: CenterHead, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    embeddings, labels = batch[0].clone().requires_grad_(), batch[1]
    loss = one(embeddings, labels)
    loss.backward()
    one.step(0.1)
    assert embeddings.grad is not None
    return [loss.detach(), embeddings.grad]


@pytest.mark.parametrize("kept_bytes", [0, 2**27])
@pytest.mark.parametrize("sample_rate", [None, 0.0, 0.4])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_trains_as_the_oracle_with_torch_sgd(
    loss: str, sample_rate: float | None, kept_bytes: int
) -> None:
    ours = head(sample_rate, loss, kept_bytes=kept_bytes, momentum=0.0)
    assert ours.centers.weight.shape == (3 * CLASSES, DIM)
    parts = copy.deepcopy(LOSSES[loss])
    rows = nn.Parameter(ours.centers.weight.clone())
    for embeddings, labels in batches(4):
        ids = ours.select(labels).ids
        ids = torch.arange(CLASSES) if ids is None else ids
        took_part = (3 * ids[:, None] + torch.arange(3)).flatten()
        theirs = embeddings.clone().requires_grad_()
        oracle = dense_margin_softmax(
            theirs,
            rows[took_part],
            torch.searchsorted(ids, labels),
            scale=20.0,
            observe=True,
            sub_centers=3,
            **parts,
        )
        of_embeddings, of_rows = torch.autograd.grad(oracle, (theirs, rows))
        with torch.no_grad():
            rows[took_part] -= 0.1 * (of_rows + 5e-4 * rows)[took_part]
        found, gradient = step(ours, (embeddings, labels))
        torch.testing.assert_close(found, oracle.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, of_embeddings, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours.centers.weight, rows.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_classes_drawn_are_all_classes_bit_for_bit(loss: str, dtype: torch.dtype) -> None:
    heads = [head(None, loss, dtype=dtype), head(1.0, loss, dtype=dtype)]
    for batch in batches(3):
        first, second = (step(each, batch) for each in heads)
        assert all(map(torch.equal, first, second))
    assert torch.equal(heads[0].centers.weight, heads[1].centers.weight)


def test_accumulated_row_gradients_are_of_rows() -> None:
    together, fused = head(0.4, "arcface"), head(0.4, "arcface")
    batch = batches(1)[0]
    for each in (together, fused):
        each(*batch).backward()
    assert together.row_gradients().values.shape == (3 * 21, DIM)
    for each in (together, fused):
        each.step(0.1)
    torch.testing.assert_close(
        together.centers.weight, fused.centers.weight, rtol=1e-12, atol=1e-15
    )


def test_resume_is_exact() -> None:
    data = batches(6)
    straight, first, second = (head(0.3, "all") for _ in range(3))
    losses = [step(straight, batch)[0] for batch in data]
    for batch in data[:3]:
        step(first, batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [step(second, batch)[0] for batch in data[3:]] == losses[3:]
    assert torch.equal(second.centers.weight, straight.centers.weight)


@pytest.mark.parametrize("num_classes", [CLASSES, 2**14])  # in order, and shuffled
def test_centers_of_a_class_lie_together(num_classes: int) -> None:
    one = head(None, "arcface", num_classes=num_classes)
    classes = torch.tensor([5, 0, 5])
    found = one.class_centers(classes)
    assert found.shape == (3, 3, DIM)
    places = one.row_order(classes)
    expected = one.centers.weight.view(num_classes, 3, DIM)[places]
    assert torch.equal(found, expected)
    assert one.class_centers(classes[:0]).shape == (0, 3, DIM)


def test_noisy_classes_keep_a_center_for_their_noise() -> None:
    """What it is for: images of two people under one label are told apart by its centers."""
    draw = torch.Generator().manual_seed(1)
    people = torch.randn(12, 16, generator=draw)  # label k holds the people 2k and 2k + 1
    nearest = {}
    for sub_centers in (1, 2):
        one = mf.FullFC(
            num_classes=6,
            dim=16,
            margin=mf.CosFace(0.2),
            scale=16.0,
            sub_centers=sub_centers,
            momentum=0.0,
            seed=1,
        )
        for _ in range(300):
            who = torch.randint(12, (32,), generator=draw)
            noise = 0.3 * torch.randn(32, 16, generator=draw)
            one(people[who] + noise, who // 2).backward()
            one.step(0.01)
        centers = nn.functional.normalize(one.centers.weight, dim=1).view(6, sub_centers, 16)
        faces = nn.functional.normalize(people, dim=1).view(6, 2, 16)
        nearest[sub_centers] = (faces @ centers.transpose(1, 2)).amax(dim=2).mean()
    assert nearest[2] > nearest[1] + 0.05

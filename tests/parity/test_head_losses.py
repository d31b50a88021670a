"""Heads with all that a loss can have (margins that look at batches or train lengths, rules for the
negatives, label smoothing) against the oracle, and their exact resume."""

import copy
import statistics

import pytest
import torch
from margins_table import NORM_MARGINS, RULES
from torch import Tensor, nn

import manyface as mf
from manyface.base.errors import CheckpointError, ConfigError
from manyface.heads import CenterHead
from manyface.margins import AdaFace, CurricularFace, MagFace, MVSoftmax
from manyface.softmax import dense_margin_softmax
from manyface.softmax.rows import TensorRows
from manyface.softmax.streamed import row_gradients, streamed_forward

CLASSES, DIM, BATCH = 53, 11, 17
Batch = tuple[Tensor, Tensor]

LOSSES: dict[str, dict[str, object]] = {
    "adaface": {"margin": AdaFace(t_alpha=0.3)},
    "magface": {"margin": NORM_MARGINS["magface"]},
    "smoothing": {"margin": mf.CosFace(0.4), "label_smoothing": 0.1},
    "curricular": {"margin": mf.ArcFace(0.5), "negatives": CurricularFace(t_alpha=0.3)},
    "all": {
        "margin": AdaFace(t_alpha=0.3),
        "negatives": CurricularFace(t_alpha=0.3),
        "label_smoothing": 0.2,
    },
    "magface_removing": {
        "margin": NORM_MARGINS["magface"],
        "negatives": RULES["filter_remove"],
        "label_smoothing": 0.2,
    },
    "mv": {"margin": mf.ArcFace(0.5), "negatives": MVSoftmax(0.2)},
}


def batches(count: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(3)
    return [
        (
            4 * torch.randn(BATCH, DIM, generator=draw, dtype=torch.float64),
            torch.randint(CLASSES, (BATCH,), generator=draw),
        )
        for _ in range(count)
    ]


def head(sample_rate: float | None, loss: str | dict[str, object], **options: object) -> CenterHead:
    """With margin and rule of its own: running averages are shared otherwise."""
    parts = copy.deepcopy(LOSSES[loss] if isinstance(loss, str) else loss)
    shared = {"num_classes": CLASSES, "dim": DIM, "scale": 20.0, "seed": 7, "chunk_size": 8}
    options = {**shared, "dtype": torch.float64, **parts, **options}
    if sample_rate is None:
        return mf.FullFC(**options)  # type: ignore[arg-type]
    return mf.PartialFC(sample_rate=sample_rate, **options)  # type: ignore[arg-type]


def step(one: CenterHead, batch: Batch) -> list[Tensor]:
    embeddings, labels = batch[0].clone().requires_grad_(), batch[1]
    loss = one(embeddings, labels)
    loss.backward()
    one.step(0.1)
    assert embeddings.grad is not None
    return [loss.detach(), embeddings.grad]


@pytest.mark.parametrize("kept_bytes", [0, 2**27])
@pytest.mark.parametrize("sample_rate", [None, 0.4])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_head_trains_as_the_oracle_with_torch_sgd(
    loss: str, sample_rate: float | None, kept_bytes: int
) -> None:
    ours = head(sample_rate, loss, kept_bytes=kept_bytes, momentum=0.0)
    parts = copy.deepcopy(LOSSES[loss])
    rows = nn.Parameter(ours.centers.weight.clone())
    for embeddings, labels in batches(5):
        ids = ours.select(labels).ids
        ids = torch.arange(CLASSES) if ids is None else ids
        theirs = embeddings.clone().requires_grad_()
        oracle = dense_margin_softmax(
            theirs, rows[ids], torch.searchsorted(ids, labels), scale=20.0, observe=True, **parts
        )
        of_embeddings, of_rows = torch.autograd.grad(oracle, (theirs, rows))
        with torch.no_grad():
            rows[ids] -= 0.1 * (of_rows + 5e-4 * rows)[ids]
        found, gradient = step(ours, (embeddings, labels))
        torch.testing.assert_close(found, oracle.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient, of_embeddings, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours.centers.weight, rows.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES)
def test_bit_for_bit(loss: str, dtype: torch.dtype) -> None:
    """All classes drawn are all classes; numerators kept are those computed again."""
    heads = [
        head(None, loss, dtype=dtype),
        head(1.0, loss, dtype=dtype),
        head(None, loss, dtype=dtype, kept_bytes=0),
    ]
    for batch in batches(3):
        first, *others = [step(each, batch) for each in heads]
        for other in others:
            assert all(map(torch.equal, first, other))
    for each in heads[1:]:
        assert torch.equal(each.centers.weight, heads[0].centers.weight)


@pytest.mark.parametrize("kept_bytes", [0, 2**27])
@pytest.mark.parametrize("loss", ["curricular", "all"])
def test_row_gradients_are_of_the_averages_of_their_forward(loss: str, kept_bytes: int) -> None:
    """A second micro-batch moves t before the rows of the first are differentiated."""
    together, alone = (head(None, loss, kept_bytes=kept_bytes) for _ in range(2))
    data = batches(2)
    for embeddings, labels in data:
        together(embeddings, labels).backward()
    expected = torch.zeros(CLASSES, DIM, dtype=torch.float64)
    for embeddings, labels in data:
        alone(embeddings, labels).backward()
        expected += alone.row_gradients().values
        alone.zero_grad()
    torch.testing.assert_close(together.row_gradients().values, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", ["adaface", "curricular", "all"])
def test_resume_is_exact(loss: str) -> None:
    data = batches(8)
    straight, first, second = (head(0.3, loss) for _ in range(3))
    losses = [step(straight, batch)[0] for batch in data]
    for batch in data[:4]:
        step(first, batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [step(second, batch)[0] for batch in data[4:]] == losses[4:]
    assert torch.equal(second.centers.weight, straight.centers.weight)
    assert str(second.averages.get_extra_state()) == str(straight.averages.get_extra_state())


def test_only_training_moves_the_averages() -> None:
    one = head(None, "all")
    (embeddings, labels), other = batches(2)

    def averages() -> list[float]:
        return [float(one.margin.running["mean"]), float(one.negatives.running["t"])]  # type: ignore[union-attr]

    first = averages()
    with torch.no_grad():
        one(embeddings, labels)
    one.eval()(embeddings, labels).backward()
    one.step(0.1)
    assert averages() == first
    one.train()(*other)
    assert all(now != then for now, then in zip(averages(), first, strict=True))


def test_states_of_other_losses_are_refused() -> None:
    plain, ada, curricular = (
        head(None, loss) for loss in ({"margin": mf.CosFace(0.4)}, "adaface", "curricular")
    )
    with pytest.raises(RuntimeError, match=r"Missing key.*averages"):
        ada.load_state_dict(plain.state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*averages"):
        plain.load_state_dict(ada.state_dict())
    with pytest.raises(CheckpointError, match=r"expected running averages of \['margin'\], got"):
        ada.load_state_dict(curricular.state_dict())
    assert "averages._extra_state" not in plain.state_dict()


def test_magface_pushes_lengths() -> None:
    """What is not tangent is the gradient of the length alone, and no other margin has it."""
    embeddings, labels = batches(1)[0]
    for margin, trained in ((MagFace(l_a=1.0, u_a=50.0), True), (mf.ArcFace(0.5), False)):
        x = embeddings.clone().requires_grad_()
        head(None, {"margin": margin})(x, labels).backward()
        radial = (x.grad * x).sum(dim=1)  # type: ignore[operator]
        assert bool((radial.abs() > 1e-6).all() if trained else (radial.abs() < 1e-12).all())


def errors_in_bfloat16(seed: int, *, kept_bytes: int, **options: object) -> list[list[float]]:
    """Of loss, embedding gradient and row gradients: ours with 8-bit operands, autocast's."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(700, 64, generator=draw) * 0.01
    targets = torch.randint(700, (48,), generator=draw)
    embeddings = torch.randn(48, 64, generator=draw) + 100 * rows[targets]

    def dense(dtype: torch.dtype, *, autocast: bool) -> list[Tensor]:
        x, w = (each.to(dtype).clone().requires_grad_() for each in (embeddings, rows))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = dense_margin_softmax(x, w, targets, **options)
        return [loss.detach(), *torch.autograd.grad(loss, (x, w))]

    exact, plain = dense(torch.float64, autocast=False), dense(torch.float32, autocast=True)
    found = streamed_forward(
        embeddings,
        TensorRows(rows),
        targets,
        chunk_size=100,
        operands=torch.bfloat16,
        kept_bytes=kept_bytes,
        **options,
    )
    chunks = [chunk.clone() for _, _, chunk in row_gradients(found.residual, TensorRows(rows))]
    got = [found.loss, found.embedding_gradient, torch.cat(chunks)]
    return [
        [float((each.double() - truth).norm() / truth.norm()) for each in (ours, theirs)]
        for ours, theirs, truth in zip(got, plain, exact, strict=True)
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kept_bytes", [0, 2**30])
@pytest.mark.parametrize("rule", [CurricularFace(), MVSoftmax(0.2)], ids=str)
def test_bfloat16_operands_are_better_than_autocast(
    rule: CurricularFace | MVSoftmax, kept_bytes: int, smoothing: float
) -> None:
    """In the median of problems: any rounding can take a class at the border for a hard one."""
    options = {"margin": mf.ArcFace(0.3), "scale": 64.0, "label_smoothing": smoothing}
    found = [
        errors_in_bfloat16(seed, kept_bytes=kept_bytes, negatives=rule, **options)
        for seed in range(5)
    ]
    for each in zip(*found, strict=True):  # loss, embeddings, rows
        ours, theirs = (statistics.median(errors) for errors in zip(*each, strict=True))
        assert ours <= 0.6 * theirs
        assert ours < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"negatives": CurricularFace},
        {"negatives": 0.2},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
    ],
    ids=str,
)
def test_impossible_losses_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"negatives must be a rule|label_smoothing must be in"):
        head(None, "mv", **wrong)

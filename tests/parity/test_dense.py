"""The dense oracle against the papers' sums, written out one sample and one class at a time.

Everything here is a scalar, differentiated by autograd; no function of the package takes part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from margins_table import MARGINS, NORM_MARGINS, RULES
from torch import Tensor

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.margins import AdaFace, CurricularFace, MagFace, NegativeRule
from manyface.softmax import dense_margin_softmax

SCALE = 12.0
# psi(cosine, length of the embedding), and g(cosine, psi): scalars in, a scalar or None out.
TargetLogit = Callable[[Tensor, Tensor], Tensor]
NegativeLogit = Callable[[Tensor, Tensor], Tensor | None]


def angular(cosine: Tensor, radians: Tensor | float, factor: float = 1.0) -> Tensor:
    """cos(factor theta + radians) below 0, between 0 and pi, and in the turns after it."""
    phi = factor * torch.acos(cosine) + radians
    if phi < 0:
        return torch.ones_like(phi)
    turns = int(phi.detach() / math.pi)
    return (-1) ** turns * torch.cos(phi) - 2 * turns


def adaface(cosine: Tensor, length: Tensor) -> Tensor:
    k = max(-1.0, min(1.0, 0.333 * (min(float(length.detach()), 100.0) - 11.0) / (4.0 + 0.001)))
    return angular(cosine, -0.4 * k) - 0.4 - 0.4 * k


def magface(cosine: Tensor, length: Tensor) -> Tensor:
    a = torch.clamp(length, 2.0, 30.0)
    return angular(cosine, 0.45 + (0.8 - 0.45) * (a - 2.0) / (30.0 - 2.0))


def magface_penalty(length: Tensor) -> Tensor:
    a = torch.clamp(length, 2.0, 30.0)
    return 35.0 * (1 / a + a / 30.0**2)


BY_HAND: dict[str, TargetLogit] = {
    "normface": lambda c, a: c,
    "cosface": lambda c, a: c - 0.4,
    "arcface": lambda c, a: angular(c, 0.5),
    "arcface_straight_through": lambda c, a: c + (angular(c, 0.5) - c).detach(),
    "combined": lambda c, a: angular(c, 0.3, 1.3) - 0.2,
    "combined_straight_through": lambda c, a: c + (angular(c, 0.4, 0.9) - 0.1 - c).detach(),
    "sphereface": lambda c, a: (5 * c + angular(c, 0.0, 3.0)) / 6,
    "adaface": adaface,
    "magface": magface,
}
RULES_BY_HAND: dict[str, NegativeLogit] = {
    "curricularface": lambda c, psi: c * (0.4 + c) if c > psi else c,
    "mv_adaptive": lambda c, psi: 1.2 * c + 0.2 if c > psi else c,
    "mv_fixed": lambda c, psi: c + 0.2 if c > psi else c,
    "filter_zero": lambda c, psi: torch.zeros_like(c) if c > 0.3 else c,
    "filter_remove": lambda c, psi: None if c > 0.3 else c,
}


@dataclass(frozen=True)
class Written:
    """The loss as the papers write it."""

    target: TargetLogit
    negative: NegativeLogit = lambda c, psi: c
    smoothing: float = 0.0
    sub_centers: int = 1
    penalty: Callable[[Tensor], Tensor] | None = None

    def loss(self, embeddings: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        losses = [self.of_sample(x, rows, int(y)) for x, y in zip(embeddings, targets, strict=True)]
        return torch.stack(losses).sum() / len(losses)

    def of_sample(self, x: Tensor, rows: Tensor, own: int) -> Tensor:
        length = (x * x).sum().sqrt()
        psi = self.target(self.cosine(x, rows, own), length)
        logits = [SCALE * psi]  # the sample's own class first
        for other in range(rows.shape[0] // self.sub_centers):
            if other != own:
                g = self.negative(self.cosine(x, rows, other), psi.detach())
                logits += [] if g is None else [SCALE * g]
        log_z = torch.stack([logit.exp() for logit in logits]).sum().log()
        log_p = [logit - log_z for logit in logits]
        loss = -(1 - self.smoothing) * log_p[0]
        loss = loss - self.smoothing / len(log_p) * torch.stack(log_p).sum()
        return loss if self.penalty is None else loss + self.penalty(length)

    def cosine(self, x: Tensor, rows: Tensor, label: int) -> Tensor:
        """The first of the largest cosines of a class's sub-centers."""
        mine = rows[label * self.sub_centers : (label + 1) * self.sub_centers]
        cosines = [(x * w).sum() / (x * x).sum().sqrt() / (w * w).sum().sqrt() for w in mine]
        return max(cosines, key=lambda cosine: float(cosine.detach()))


def problem(
    *, batch: int = 7, classes: int = 6, dim: int = 4, sub_centers: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    embeddings = torch.randn(batch, dim, generator=draw, dtype=torch.float64)
    embeddings *= torch.linspace(0.5, 20, batch, dtype=torch.float64)[:, None]
    rows = torch.randn(classes * sub_centers, dim, generator=draw, dtype=torch.float64) * 0.01
    targets = torch.randint(classes, (batch,), generator=draw)
    embeddings[0] = rows[targets[0] * sub_centers] * 300 + 0.1  # near its own center
    embeddings[1] = -rows[targets[1] * sub_centers] * 900 + 0.1  # and far from it
    return embeddings.requires_grad_(), rows.requires_grad_(), targets


def check(loss: Tensor, expected: Tensor, inputs: tuple[Tensor, Tensor]) -> None:
    """Equal losses, equal gradients."""
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for got, truth in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [*MARGINS, *NORM_MARGINS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_margins(name: str, smoothing: float) -> None:
    embeddings, rows, targets = problem()
    margin = {**MARGINS, **NORM_MARGINS}[name]
    penalty = magface_penalty if name == "magface" else None
    written = Written(BY_HAND[name], smoothing=smoothing, penalty=penalty)
    loss = dense_margin_softmax(
        embeddings, rows, targets, margin=margin, scale=SCALE, label_smoothing=smoothing
    )
    check(loss, written.loss(embeddings, rows, targets), (embeddings, rows))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("sub_centers", [1, 3])
def test_rules_for_negatives(name: str, smoothing: float, sub_centers: int) -> None:
    embeddings, rows, targets = problem(sub_centers=sub_centers)
    written = Written(BY_HAND["arcface"], RULES_BY_HAND[name], smoothing, sub_centers)
    loss = dense_margin_softmax(
        embeddings,
        rows,
        targets,
        margin=mf.ArcFace(0.5),
        scale=SCALE,
        negatives=RULES[name],
        label_smoothing=smoothing,
        sub_centers=sub_centers,
    )
    check(loss, written.loss(embeddings, rows, targets), (embeddings, rows))


@pytest.mark.parametrize("name", [*MARGINS, *NORM_MARGINS])
def test_sub_centers(name: str) -> None:
    embeddings, rows, targets = problem(sub_centers=2)
    margin = {**MARGINS, **NORM_MARGINS}[name]
    penalty = magface_penalty if name == "magface" else None
    written = Written(BY_HAND[name], sub_centers=2, penalty=penalty)
    loss = dense_margin_softmax(
        embeddings, rows, targets, margin=margin, scale=SCALE, sub_centers=2
    )
    check(loss, written.loss(embeddings, rows, targets), (embeddings, rows))


def test_of_equal_sub_centers_the_first_gets_the_gradient() -> None:
    embeddings, rows, targets = problem(sub_centers=1)
    twice = rows.detach().repeat_interleave(2, dim=0).requires_grad_()
    once, both = (
        dense_margin_softmax(
            embeddings, each, targets, margin=mf.ArcFace(0.5), scale=SCALE, sub_centers=count
        )
        for each, count in ((rows, 1), (twice, 2))
    )
    torch.testing.assert_close(once, both, rtol=0, atol=1e-14)
    (expected,), (got,) = torch.autograd.grad(once, rows), torch.autograd.grad(both, twice)
    torch.testing.assert_close(got[0::2], expected, rtol=1e-12, atol=1e-12)
    assert bool((got[1::2] == 0).all())


@pytest.mark.parametrize("negatives", [None, *RULES.values()], ids=str)
@pytest.mark.parametrize("margin", [MARGINS["arcface"], *NORM_MARGINS.values()], ids=str)
def test_gradients_against_finite_differences(
    margin: mf.Margin, negatives: NegativeRule | None
) -> None:
    embeddings, rows, targets = problem(batch=4, classes=3, sub_centers=2)
    scaled_rows = (rows.detach() * 100).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w: dense_margin_softmax(
            x,
            w,
            targets,
            margin=margin,
            scale=4.0,
            negatives=negatives,
            label_smoothing=0.1,
            sub_centers=2,
        ),
        (embeddings, scaled_rows),
    )


def test_observing_is_the_step_of_a_head_in_training() -> None:
    embeddings, rows, targets = problem()
    seen, ready = (AdaFace(t_alpha=0.5), CurricularFace()), (AdaFace(), CurricularFace())
    loss = dense_margin_softmax(
        embeddings, rows, targets, margin=seen[0], scale=SCALE, negatives=seen[1], observe=True
    )
    norms = embeddings.detach().norm(dim=1)
    own = torch.cosine_similarity(embeddings.detach(), rows.detach()[targets])
    assert float(seen[0].running["mean"]) == pytest.approx(10.0 + 0.5 * float(norms.mean()))
    assert float(seen[1].running["t"]) == pytest.approx(0.01 * float(own.mean()))
    for each, kept in zip(ready, seen, strict=True):
        each.running.load_state(kept.running.state())
    later = dense_margin_softmax(
        embeddings, rows, targets, margin=ready[0], scale=SCALE, negatives=ready[1]
    )
    assert torch.equal(loss, later)
    assert torch.equal(ready[0].running["mean"], seen[0].running["mean"])


def test_a_sample_whose_negatives_are_all_removed_has_no_loss() -> None:
    embeddings = torch.tensor([[1.0, 0.1], [-1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.2]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1])
    loss = dense_margin_softmax(
        embeddings,
        rows,
        targets,
        margin=mf.CosFace(0.4),
        scale=SCALE,
        negatives=RULES["filter_remove"],
        label_smoothing=0.1,
    )
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert bool((gradient[0] == 0).all())
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient[1] != 0).all())


def test_smoothing_is_torch_s_where_all_classes_take_part() -> None:
    embeddings, rows, targets = problem()
    cosines = torch.nn.functional.normalize(embeddings) @ torch.nn.functional.normalize(rows).T
    logits = cosines - 0.4 * torch.eye(rows.shape[0], dtype=torch.float64)[targets]
    expected = torch.nn.functional.cross_entropy(SCALE * logits, targets, label_smoothing=0.3)
    loss = dense_margin_softmax(
        embeddings, rows, targets, margin=mf.CosFace(0.4), scale=SCALE, label_smoothing=0.3
    )
    check(loss, expected, (embeddings, rows))


def test_an_embedding_of_length_zero_has_no_gradient_with_magface() -> None:
    embeddings, rows, targets = problem()
    with torch.no_grad():
        embeddings[2] = 0
    loss = dense_margin_softmax(embeddings, rows, targets, margin=MagFace(), scale=SCALE)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert bool((gradient[2] == 0).all())
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"sub_centers": 0},
        {"sub_centers": 4},  # 6 rows
    ],
)
def test_impossible_arguments_are_refused(options: dict[str, float]) -> None:
    embeddings, rows, targets = problem()
    with pytest.raises(ConfigError):
        dense_margin_softmax(
            embeddings, rows, targets, margin=mf.NormFace(), scale=SCALE, **options
        )

"""Fixed margins: the formula, gradients against finite differences, behaviour past pi."""

import math

import pytest
import torch

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.margins import SphereFace

COMBINATIONS = [
    (1.0, 0.0, 0.0),
    (1.0, 0.0, 0.4),
    (1.0, 0.5, 0.0),
    (1.0, 0.3, 0.2),
    (1.35, 0.0, 0.0),
    (1.35, 0.2, 0.1),
    (0.9, 0.4, 0.15),
    (4.0, 0.0, 0.0),
    (3.0, 0.7, 0.35),
]


def cosines() -> torch.Tensor:
    return torch.cos(torch.linspace(0.02, math.pi - 0.02, 301, dtype=torch.float64))


@pytest.mark.parametrize("m1, m2, m3", COMBINATIONS)
def test_combined_is_the_formula_below_pi(m1: float, m2: float, m3: float) -> None:
    cosine = cosines()
    theta = torch.acos(cosine)
    below = m1 * theta + m2 <= math.pi
    expected = torch.cos(m1 * theta + m2) - m3
    value = mf.CombinedMargin(m1, m2, m3)(cosine)
    torch.testing.assert_close(value[below], expected[below], rtol=0, atol=1e-13)


@pytest.mark.parametrize("m1, m2, m3", COMBINATIONS)
def test_combined_falls_all_the_way_and_has_no_jump(m1: float, m2: float, m3: float) -> None:
    theta = torch.linspace(0.001, math.pi - 0.001, 20_001, dtype=torch.float64)
    value = mf.CombinedMargin(m1, m2, m3)(torch.cos(theta))
    steps = value.diff()
    assert bool((steps <= 1e-12).all()), "the target logit must not rise with the angle"
    assert float(steps.abs().max()) <= 1.01 * m1 * float(theta[1] - theta[0])


@pytest.mark.parametrize("m1, m2, m3", COMBINATIONS)
def test_exact_gradient_is_the_finite_difference(m1: float, m2: float, m3: float) -> None:
    margin = mf.CombinedMargin(m1, m2, m3)
    cosine = cosines().requires_grad_()
    (slope,) = torch.autograd.grad(margin(cosine).sum(), cosine)
    step = 1e-6
    with torch.no_grad():
        numeric = (margin(cosine + step) - margin(cosine - step)) / (2 * step)
    interior = cosine.detach().abs() < 1 - 1e-3
    torch.testing.assert_close(slope[interior], numeric[interior], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("margin", [mf.NormFace(), mf.CosFace(0.35), mf.ArcFace(0.5)])
def test_gradcheck_of_the_named_margins(margin: mf.Margin) -> None:
    cosine = torch.tensor([-0.95, -0.3, 0.0, 0.6, 0.97], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(margin, (cosine,))


def test_arcface_slope_at_060_is_the_published_figure() -> None:
    cosine = torch.tensor([0.6], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mf.ArcFace(0.5)(cosine).sum(), cosine)
    assert float(slope) == pytest.approx(math.sin(math.acos(0.6) + 0.5) / 0.8, rel=1e-12)
    assert float(slope) == pytest.approx(1.237, abs=1e-3)


@pytest.mark.parametrize(
    "exact, through",
    [
        (mf.ArcFace(0.5), mf.ArcFace(0.5, gradient="straight_through")),
        (mf.CombinedMargin(1.2, 0.3, 0.1), mf.CombinedMargin(1.2, 0.3, 0.1, "straight_through")),
    ],
)
def test_straight_through_has_the_value_and_slope_one(exact: mf.Margin, through: mf.Margin) -> None:
    cosine = cosines().requires_grad_()
    torch.testing.assert_close(through(cosine), exact(cosine), rtol=0, atol=1e-15)
    (slope,) = torch.autograd.grad(through(cosine).sum(), cosine)
    assert torch.equal(slope, torch.ones_like(slope))


def test_named_margins_are_cases_of_the_combined_one() -> None:
    cosine = cosines()
    assert torch.equal(mf.NormFace()(cosine), mf.CombinedMargin()(cosine))
    assert torch.equal(mf.CosFace(0.4)(cosine), mf.CombinedMargin(m3=0.4)(cosine))
    assert torch.equal(mf.ArcFace(0.5)(cosine), mf.CombinedMargin(m2=0.5)(cosine))


def by_hand(cosine: float, *, m: int, annealing: float) -> float:
    """SphereFace of one cosine, the angle folded by counting half turns one by one."""
    phi, half_turns = m * math.acos(cosine), 0
    while phi >= (half_turns + 1) * math.pi:
        half_turns += 1
    folded = (-1) ** half_turns * math.cos(phi) - 2 * half_turns
    return (annealing * cosine + folded) / (1 + annealing)


@pytest.mark.parametrize("m, annealing", [(4, 0.0), (4, 5.0), (2, 0.0), (3, 1000.0)])
def test_sphereface_is_the_formula_in_every_half_turn(m: int, annealing: float) -> None:
    cosine = torch.cos(torch.linspace(0.01, math.pi - 0.01, 57, dtype=torch.float64))
    value = SphereFace(m, annealing=annealing)(cosine)
    expected = [by_hand(float(each), m=m, annealing=annealing) for each in cosine]
    torch.testing.assert_close(
        value, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_sphereface_spans_one_to_one_minus_two_m_and_anneals_to_the_cosine() -> None:
    ends = torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(
        SphereFace(4.0)(ends), torch.tensor([1.0, -7.0]).double(), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        SphereFace(4.0, annealing=1e9)(cosines()), cosines(), rtol=0, atol=1e-8
    )


def test_sphereface_gradients_are_what_they_say() -> None:
    cosine = torch.tensor([-0.95, -0.3, 0.1, 0.6, 0.97], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SphereFace(4.0, annealing=2.0), (cosine,))
    through = SphereFace(4.0, annealing=2.0, gradient="straight_through")
    torch.testing.assert_close(through(cosine), SphereFace(4.0, annealing=2.0)(cosine))
    (slope,) = torch.autograd.grad(through(cosine).sum(), cosine)
    assert torch.equal(slope, torch.ones_like(slope))


def test_both_margins_count_where_insightface_drops_one() -> None:
    cosine = torch.tensor([0.5], dtype=torch.float64)
    both = mf.CombinedMargin(1.0, 0.5, 0.35)(cosine)
    assert float(both) == pytest.approx(math.cos(math.acos(0.5) + 0.5) - 0.35, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edge", [1.0, -1.0, 1.0 + 1e-6, -1.0 - 1e-6])
def test_ends_of_the_range_are_finite(dtype: torch.dtype, edge: float) -> None:
    cosine = torch.tensor([edge], dtype=dtype, requires_grad=True)
    value = mf.ArcFace(0.5)(cosine)
    (slope,) = torch.autograd.grad(value.sum(), cosine)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: mf.CosFace(-0.1),
        lambda: mf.ArcFace(28.6),
        lambda: mf.CosFace(0.4, gradient="bogus"),  # type: ignore[arg-type]
        lambda: mf.ArcFace(float("nan")),
        lambda: mf.CombinedMargin(0.0),
        lambda: mf.CombinedMargin(1.0, -0.1),
        lambda: mf.ArcFace(0.5, gradient="exactly"),  # type: ignore[arg-type]
        lambda: SphereFace(0.0),
        lambda: SphereFace(4.0, annealing=-1.0),
        lambda: SphereFace(4.0, gradient="none"),  # type: ignore[arg-type]
    ],
)
def test_impossible_margins_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]

"""AdaFace and MagFace: one sample at a time by hand, gradients, state, bounds."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.margins import AdaFace, ArcFace, CosFace, MagFace, Stateful, TrainsNorm, let_observe

LENGTHS = [0.0, 1e-4, 3.0, 9.0, 10.0, 17.0, 25.0, 80.0, 110.0, 500.0]
ANGLES = [0.0, 0.01, 0.1, 0.3, 1.0, 2.0, 2.7, 3.0, 3.1, math.pi]


def grid() -> tuple[Tensor, Tensor]:
    """Every angle with every length, [N] each."""
    pairs = torch.cartesian_prod(
        torch.tensor(ANGLES, dtype=torch.float64), torch.tensor(LENGTHS, dtype=torch.float64)
    )
    return torch.cos(pairs[:, 0]), pairs[:, 1]


def folded(phi: float) -> float:
    """cos(phi), 1 below 0, going on falling past pi."""
    if phi <= 0:
        return 1.0
    return math.cos(phi) if phi <= math.pi else -math.cos(phi) - 2


def adaface_by_hand(cosine: float, length: float, *, mean: float, std: float) -> float:
    m, h = 0.4, 0.333
    clipped = min(max(length, 0.001), 100.0)
    k = min(max(h * (clipped - mean) / (std + 0.001), -1.0), 1.0)
    return folded(math.acos(cosine) - m * k) - (m + m * k)


def magface_by_hand(cosine: float, length: float) -> float:
    a = min(max(length, 10.0), 110.0)
    return folded(math.acos(cosine) + 0.45 + (0.8 - 0.45) / (110.0 - 10.0) * (a - 10.0))


def observed(mean: float, std: float) -> AdaFace:
    margin = AdaFace()
    margin.running.load_state({"mean": torch.tensor(mean), "std": torch.tensor(std)})
    return margin


@pytest.mark.parametrize("mean, std", [(20.0, 100.0), (15.0, 4.0), (30.0, 0.0)])
def test_adaface_is_the_formula(mean: float, std: float) -> None:
    cosine, norms = grid()
    expected = [
        adaface_by_hand(float(c), float(a), mean=mean, std=std)
        for c, a in zip(cosine, norms, strict=True)
    ]
    value = observed(mean, std)(cosine, norms)
    # At cosines of 1 and -1 the angle is known to sqrt(eps) only.
    torch.testing.assert_close(
        value, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=3e-8
    )
    assert float(value.max()) <= 1.0


def test_adaface_runs_from_arcface_to_cosface_and_beyond() -> None:
    cosine, margin = torch.linspace(-0.9, 0.9, 9, dtype=torch.float64), observed(20.0, 5.0)
    short, usual = torch.full_like(cosine, 0.001), torch.full_like(cosine, 20.0)
    torch.testing.assert_close(margin(cosine, short), ArcFace(0.4)(cosine))
    torch.testing.assert_close(margin(cosine, usual), CosFace(0.4)(cosine))
    long = margin(cosine, torch.full_like(cosine, 100.0))
    torch.testing.assert_close(long, torch.cos(torch.acos(cosine) - 0.4) - 0.8)


def test_adaface_has_a_true_slope_in_the_cosine_and_none_in_the_length() -> None:
    cosine = torch.tensor([-0.9, -0.2, 0.3, 0.95, 0.9999], dtype=torch.float64, requires_grad=True)
    norms = torch.tensor([3.0, 12.0, 20.0, 31.0, 90.0], dtype=torch.float64, requires_grad=True)
    margin = observed(18.0, 6.0)
    assert torch.autograd.gradcheck(lambda c: margin(c, norms.detach()), (cosine,))
    slope, by_length = torch.autograd.grad(
        margin(cosine, norms).sum(), (cosine, norms), allow_unused=True
    )
    assert by_length is None
    k = margin.quality(norms)
    theta = torch.acos(cosine.detach())
    expected = torch.sin((theta - 0.4 * k).clamp_min(0.0)) / torch.sin(theta)
    torch.testing.assert_close(slope, expected)
    assert float(slope[-1]) == 0.0  # the angle is below m k


def test_adaface_averages_mean_and_standard_deviation_of_clipped_lengths() -> None:
    margin, mean, std = AdaFace(t_alpha=0.1), 20.0, 100.0
    for lengths in ([5.0, 7.0, 12.0], [0.0, 300.0], [30.0], []):
        norms = torch.tensor(lengths, dtype=torch.float64)
        let_observe((margin, ArcFace(), None), norms, norms)
        values = [min(max(length, 0.001), 100.0) for length in lengths]
        if values:
            center = sum(values) / len(values)
            mean = 0.9 * mean + 0.1 * center
        if len(values) > 1:
            spread = sum((value - center) ** 2 for value in values) / (len(values) - 1)
            std = 0.9 * std + 0.1 * math.sqrt(spread)
        assert float(margin.running["mean"]) == pytest.approx(mean, rel=1e-12)
        assert float(margin.running["std"]) == pytest.approx(std, rel=1e-12)


def test_a_margin_with_another_m_keeps_its_averages() -> None:
    margin = AdaFace(0.2)
    later = replace(margin, m=0.4)
    margin.observe(torch.zeros(2), torch.tensor([5.0, 9.0]))
    assert later.m == 0.4
    assert later.running is margin.running
    assert AdaFace(0.2).running is not margin.running


def test_float32_stays_float32() -> None:
    cosine, norms = torch.zeros(3), torch.tensor([5.0, 20.0, 90.0])
    for margin in (AdaFace(), MagFace()):
        assert margin(cosine, norms).dtype == torch.float32
    assert MagFace().penalty(norms).dtype == torch.float32


def test_magface_is_the_formula() -> None:
    cosine, norms = grid()
    expected = [magface_by_hand(float(c), float(a)) for c, a in zip(cosine, norms, strict=True)]
    value = MagFace()(cosine, norms)
    torch.testing.assert_close(
        value, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-8
    )
    assert float(value.max()) <= 1.0


def test_magface_penalty_is_the_formula_and_least_at_the_upper_length() -> None:
    norms = torch.tensor([1.0, 10.0, 40.0, 110.0, 200.0], dtype=torch.float64)
    expected = [35.0 * (1 / a + a / 110.0**2) for a in (10.0, 10.0, 40.0, 110.0, 110.0)]
    penalty = MagFace().penalty(norms)
    torch.testing.assert_close(penalty, torch.tensor(expected, dtype=torch.float64))
    assert int(penalty.argmin()) == 3


def test_magface_gradients_are_the_finite_differences() -> None:
    cosine = torch.tensor([-0.95, -0.85, -0.2, 0.3, 0.95], dtype=torch.float64, requires_grad=True)
    norms = torch.tensor([12.0, 80.0, 30.0, 100.0, 50.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(MagFace(), (cosine, norms))
    assert torch.autograd.gradcheck(MagFace().penalty, (norms,))


def test_magface_gradient_of_the_length_is_the_stated_one_and_0_where_clipped() -> None:
    norms = torch.tensor([5.0, 30.0, 300.0], dtype=torch.float64, requires_grad=True)
    cosine = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    (of_logit,) = torch.autograd.grad(MagFace()(cosine, norms).sum(), norms)
    (of_penalty,) = torch.autograd.grad(MagFace().penalty(norms).sum(), norms)
    radians = 0.45 + 0.0035 * 20.0
    assert of_logit.tolist() == [
        0.0,
        pytest.approx(-math.sin(math.acos(0.3) + radians) * 0.0035),
        0.0,
    ]
    assert of_penalty.tolist() == [0.0, pytest.approx(35.0 * (1 / 110.0**2 - 1 / 30.0**2)), 0.0]


def test_who_is_stateful_and_who_trains_lengths() -> None:
    class Own:
        gradient = "exact"

        def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
            return cosine

    kinds = [
        (isinstance(each, Stateful), isinstance(each, TrainsNorm))
        for each in (AdaFace(), MagFace(), ArcFace(), Own())
    ]
    assert kinds == [(True, False), (False, True), (False, False), (False, False)]


@pytest.mark.parametrize("margin", [AdaFace(), MagFace()], ids=str)
def test_lengths_are_needed(margin: AdaFace | MagFace) -> None:
    with pytest.raises(ConfigError, match="needs the lengths of the embeddings"):
        margin(torch.zeros(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaFace(-0.1),
        lambda: AdaFace(0.4, h=0.0),
        lambda: AdaFace(0.4, t_alpha=0.0),
        lambda: AdaFace(0.4, t_alpha=1.5),
        lambda: AdaFace(28.6),
        lambda: MagFace(l_a=0.0),
        lambda: MagFace(l_a=20.0, u_a=10.0),
        lambda: MagFace(u_a=float("inf")),
        lambda: MagFace(l_m=0.9),
        lambda: MagFace(u_m=40.0),
        lambda: MagFace(lambda_g=-1.0),
    ],
)
def test_impossible_margins_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]

"""Rules for negatives: one class at a time by hand, slopes, bounds, chunks."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.margins import (
    CurricularFace,
    InterclassFilter,
    MVSoftmax,
    NegativeRule,
    Stateful,
    let_observe,
)


def curricular(t: float) -> CurricularFace:
    rule = CurricularFace()
    rule.running.load_state({"t": torch.tensor(t, dtype=torch.float64)})
    return rule


# Rule, and by hand (logit, slope) of one hard class and of one that is not.
Branches = Callable[[float], tuple[float, float]]


def unchanged(c: float) -> tuple[float, float]:
    return c, 1.0


RULES: dict[str, tuple[NegativeRule, Branches, Branches]] = {
    "curricular_new": (curricular(0.0), lambda c: (c * c, 2 * c), unchanged),
    "curricular": (curricular(0.6), lambda c: (c * (0.6 + c), 0.6 + 2 * c), unchanged),
    "curricular_negative_t": (curricular(-1.0), lambda c: (c * (c - 1), 2 * c - 1), unchanged),
    "mv_adaptive": (MVSoftmax(0.2), lambda c: (1.2 * c + 0.2, 1.2), unchanged),
    "mv_fixed": (MVSoftmax(0.3, "fixed"), lambda c: (c + 0.3, 1.0), unchanged),
}
FILTERS: dict[str, tuple[NegativeRule, float]] = {
    "zero": (InterclassFilter(0.4, "zero"), 0.0),
    "remove": (InterclassFilter(0.4, "remove"), -math.inf),
}
ALL: dict[str, NegativeRule] = {
    **{name: rule for name, (rule, _, _) in RULES.items()},
    **{name: rule for name, (rule, _) in FILTERS.items()},
}


def problem() -> tuple[Tensor, Tensor]:
    """Cosines [B, n] with both ends, target logits [B, 1], some below -1 and none equal to any."""
    draw = torch.Generator().manual_seed(0)
    cosine = torch.rand(9, 40, generator=draw, dtype=torch.float64) * 2 - 1
    cosine[:, 0], cosine[:, 1] = 1.0, -1.0
    target = torch.linspace(-1.7, 0.99, 9, dtype=torch.float64)[:, None]
    return cosine, target


@pytest.mark.parametrize("rule, hard, easy", RULES.values(), ids=RULES.keys())
def test_rule_is_the_formula(rule: NegativeRule, hard: Branches, easy: Branches) -> None:
    cosine, target = problem()
    logit, slope = rule(cosine, target)
    for i in range(cosine.shape[0]):
        for j in range(cosine.shape[1]):
            c = float(cosine[i, j])
            expected = hard(c) if c > float(target[i]) else easy(c)
            got = float(logit[i, j]), float(slope[i, j])
            assert got == pytest.approx(expected, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("rule, filtered", FILTERS.values(), ids=FILTERS.keys())
def test_filter_is_the_threshold_whatever_the_target(rule: NegativeRule, filtered: float) -> None:
    cosine = torch.tensor([[-1.0, 0.0, 0.4, 0.4 + 1e-12, 1.0]], dtype=torch.float64)
    for target in (-0.5, 0.9):
        logit, slope = rule(cosine, torch.tensor([[target]], dtype=torch.float64))
        assert logit.tolist() == [[-1.0, 0.0, 0.4, filtered, filtered]]
        assert slope.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL.keys())
def test_slope_is_that_of_autograd_and_of_finite_differences(rule: NegativeRule) -> None:
    cosine, target = problem()
    cosine.requires_grad_()
    target.requires_grad_()
    logit, slope = rule(cosine, target)
    by_autograd, by_target = torch.autograd.grad(
        logit[torch.isfinite(logit)].sum(), (cosine, target), allow_unused=True
    )
    assert by_target is None
    assert not slope.requires_grad
    torch.testing.assert_close(by_autograd, slope, rtol=0, atol=1e-14)
    step = 1e-7
    with torch.no_grad():
        ends = [rule(cosine + sign * step, target)[0] for sign in (1, -1)]
    numeric = ((ends[0] - ends[1]) / (2 * step)).nan_to_num(nan=0.0)  # of -inf minus -inf
    torch.testing.assert_close(numeric, slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL.keys())
def test_logits_keep_to_the_bound(rule: NegativeRule) -> None:
    cosine = torch.linspace(-1, 1, 2001, dtype=torch.float64)[None, :]
    for target in (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0):
        logit, _ = rule(cosine, torch.tensor([[target]], dtype=torch.float64))
        assert float(logit.max()) <= rule.bound
        assert float(logit[torch.isfinite(logit)].min()) >= -1.0


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL.keys())
def test_chunks_of_classes_give_the_same_and_inputs_are_not_written(rule: NegativeRule) -> None:
    cosine, target = problem()
    before = cosine.clone()
    whole = rule(cosine, target)
    parts = [rule(chunk, target) for chunk in cosine.split(7, dim=1)]
    assert torch.equal(cosine, before)
    for index, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[index] for part in parts], dim=1), expected)
        expected.zero_()
    assert torch.equal(cosine, before)


@pytest.mark.parametrize("rule", ALL.values(), ids=ALL.keys())
def test_float32_stays_float32(rule: NegativeRule) -> None:
    cosine, target = (tensor.float() for tensor in problem())
    assert [tensor.dtype for tensor in rule(cosine, target)] == [torch.float32] * 2
    assert isinstance(rule, NegativeRule)


def test_curricular_t_averages_the_mean_target_cosine() -> None:
    rule, t = CurricularFace(t_alpha=0.25), 0.0
    for batch in ([0.1, 0.3], [-0.5], [], [0.9, 0.8, 0.7]):
        cosine = torch.tensor(batch, dtype=torch.float64)
        let_observe((None, rule), cosine, torch.ones_like(cosine))
        if batch:
            t = 0.75 * t + 0.25 * sum(batch) / len(batch)
        assert float(rule.running["t"]) == pytest.approx(t, rel=1e-14)
    assert isinstance(rule, Stateful)
    assert not isinstance(MVSoftmax(), Stateful)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CurricularFace(t_alpha=0.0),
        lambda: MVSoftmax(-0.1),
        lambda: MVSoftmax(0.2, "sometimes"),  # type: ignore[arg-type]
        lambda: InterclassFilter(1.0),
        lambda: InterclassFilter(float("nan")),
        lambda: InterclassFilter(0.4, "forget"),  # type: ignore[arg-type]
    ],
)
def test_impossible_rules_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]

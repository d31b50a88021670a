"""Margin and scale that change with the steps of a head: the oracle of each step, exact resume."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.heads import CenterHead
from manyface.margins import AdaFace, CurricularFace, MagFace
from manyface.margins.schedules import linear_value, sphereface_annealing, stepwise_value
from manyface.softmax import dense_margin_softmax

CLASSES, DIM, BATCH = 31, 7, 12
WARM_UP = partial(linear_value, start=0.0, end=0.4, num_steps=4)
CASES = {
    "cosface": (mf.CosFace(0.4), {"m": WARM_UP}),
    "scale": (mf.ArcFace(0.5), {"scale": partial(linear_value, start=8.0, end=30.0, num_steps=3)}),
    "both": (
        mf.ArcFace(0.5),
        {"m": WARM_UP, "scale": partial(stepwise_value, values=[10.0, 20.0], borders=[2])},
    ),
    "sphereface": (mf.SphereFace(3.0), {"annealing": sphereface_annealing}),
    "adaface": (AdaFace(t_alpha=0.3), {"m": WARM_UP}),
    "magface": (
        MagFace(l_a=1.0, u_a=20.0),
        {"l_m": partial(linear_value, start=0.0, end=0.45, num_steps=4)},
    ),
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


def head(case: str, sample_rate: float = 1.0, **options: object) -> CenterHead:
    margin, schedules = copy.deepcopy(CASES[case])
    return mf.PartialFC(
        num_classes=CLASSES,
        dim=DIM,
        margin=margin,
        schedules=schedules,
        scale=20.0,
        sample_rate=sample_rate,
        dtype=torch.float64,
        **options,  # type: ignore[arg-type]
    )


def step(one: CenterHead, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = one(*batch)
    loss.backward()
    one.step(0.1)
    return loss.detach()


@pytest.mark.parametrize("case", CASES)
def test_each_step_is_the_oracle_with_the_values_of_its_step(case: str) -> None:
    ours = head(case, momentum=0.0)
    margin, schedules = copy.deepcopy(CASES[case])
    rows = nn.Parameter(ours.centers.weight.clone())
    for number, (embeddings, labels) in enumerate(batches(6)):
        scale = schedules["scale"](number) if "scale" in schedules else 20.0
        for name, value in schedules.items():
            if name != "scale":  # written into the record, as a loop of one's own might do
                object.__setattr__(margin, name, value(number))
        oracle = dense_margin_softmax(
            embeddings, rows, labels, margin=margin, scale=scale, observe=True
        )
        (gradient,) = torch.autograd.grad(oracle, rows)
        with torch.no_grad():
            rows -= 0.1 * (gradient + 5e-4 * rows)
        loss = step(ours, (embeddings, labels))
        torch.testing.assert_close(loss, oracle.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.centers.weight, rows.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_resume_in_the_middle_of_a_schedule_is_exact(case: str) -> None:
    data = batches(8)
    straight, first, second = (head(case, 0.5) for _ in range(3))
    losses = [step(straight, batch) for batch in data]
    for batch in data[:3]:
        step(first, batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert [step(second, batch) for batch in data[3:]] == losses[3:]
    assert torch.equal(second.centers.weight, straight.centers.weight)
    if straight.averages is not None:
        assert str(second.averages.get_extra_state()) == str(straight.averages.get_extra_state())  # type: ignore[union-attr]


def test_running_averages_go_along() -> None:
    """They are the head's own margin's, and those of an unscheduled head that saw the same."""
    margin = AdaFace(t_alpha=0.3)
    plain = mf.FullFC(
        num_classes=CLASSES, dim=DIM, margin=AdaFace(t_alpha=0.3), dtype=torch.float64
    )
    scheduled = mf.FullFC(
        num_classes=CLASSES,
        dim=DIM,
        margin=margin,
        negatives=CurricularFace(),
        schedules={"m": WARM_UP},
        dtype=torch.float64,
    )
    for batch in batches(3):
        step(plain, batch)
        step(scheduled, batch)
    assert float(margin.running["mean"]) == float(plain.margin.running["mean"])  # type: ignore[attr-defined]
    assert float(margin.running["mean"]) != 20.0
    assert scheduled.loss_at(99)[0].running is margin.running  # type: ignore[attr-defined]
    assert margin.m == 0.4


def test_micro_batches_of_a_step_have_the_values_of_that_step() -> None:
    together, alone = head("both"), head("both")
    first, second = batches(2)
    for batch in (first, second):
        together(*batch).backward()
    expected = []
    for batch in (first, second):
        alone(*batch).backward()
        expected.append(alone.row_gradients().values.clone())
        alone.zero_grad()
    torch.testing.assert_close(together.row_gradients().values, sum(expected), rtol=1e-12, atol=0)


def test_a_scheduled_head_can_be_pickled() -> None:
    one = head("both")
    twin = pickle.loads(pickle.dumps(one))
    assert torch.equal(twin(*batches(1)[0]), one(*batches(1)[0]))


@pytest.mark.parametrize(
    ("margin", "schedules", "words"),
    [
        (mf.CosFace(0.4), {"m2": WARM_UP}, "cannot schedule 'm2': expected one of scale, m,"),
        (mf.NormFace(), {"m": WARM_UP}, "expected one of scale, which a head with NormFace"),
        (mf.ArcFace(0.5), {"gradient": WARM_UP}, "cannot schedule 'gradient'"),
        (AdaFace(), {"running": WARM_UP}, "cannot schedule 'running'"),
        (lambda cosine, norms=None: cosine, {"m": WARM_UP}, "cannot schedule 'm'"),
        (mf.CosFace(0.4), {"scale": lambda step: 0.0}, "scale at step 0 must be a number above 0"),
        (mf.SphereFace(4.0), {"m": WARM_UP}, "SphereFace m must be a number above 0"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    margin: mf.Margin, schedules: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        mf.FullFC(num_classes=5, dim=4, margin=margin, schedules=schedules)  # type: ignore[arg-type]

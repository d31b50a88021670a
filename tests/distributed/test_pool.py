"""F2C whose slots are spread over 1 to 4 real processes, against the same F2C in one.

Losses, gradients of the probes, rows, slots and ledger after six steps; and the bytes that travel.
"""

from typing import Any

import pytest
import torch
from f2c_models import DIM, Dual
from pool_cases import (
    OFFICIAL,
    STEPS,
    PoolCase,
    half_batches,
    make_f2c,
    part_of,
    train_anchors,
    train_anchors_alone,
    train_pool,
    train_pool_alone,
)
from processes import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from manyface.heads import F2C, DynamicClassPool
from manyface.heads.pool import GALLERY, HARDEST
from manyface.margins import ArcFace, CosFace
from manyface.parallel import ALONE, Ranks

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def compare(case: PoolCase) -> None:
    """Train on as many ranks as there are counts, and alone."""
    found, alone = on_ranks(train_pool, len(case.counts), case), train_pool_alone(case)
    for rank in found:
        for one, other in zip(rank.losses, alone.losses, strict=True):
            assert one == pytest.approx(other, rel=1e-10, abs=1e-12)
        torch.testing.assert_close(rank.weight, alone.weight, **TOLERANCE)
        assert rank.losses == found[0].losses
        for name, values in alone.state.items():
            exact = name != "gallery"
            torch.testing.assert_close(
                rank.state[name], values, **({"rtol": 0, "atol": 0} if exact else TOLERANCE)
            )
    torch.testing.assert_close(torch.cat([rank.rows for rank in found]), alone.rows, **TOLERANCE)
    _compare_gradients(case, [rank.gradients for rank in found], alone.gradients)


def _compare_gradients(case: PoolCase, found: list[list[Tensor]], expected: list[Tensor]) -> None:
    assert all(len(each) == len(expected) for each in found)
    for number, whole in enumerate(expected):
        parts = [gradients[number] for gradients in found]
        torch.testing.assert_close(torch.cat(parts), whole, **TOLERANCE)


COUNTS = [(5,), (4, 3), (0, 6), (3, 0, 4), (2, 3, 1, 1), (0, 7, 0, 0)]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("rule", ["hits_first", "sequential"])
def test_both_rules_on_any_number_of_ranks(counts: tuple[int, ...], rule: str) -> None:
    for num_passes in (1, 2):
        for features in (1, 2):
            compare(
                PoolCase(
                    counts,
                    pool=(("features", features),),
                    f2c=(("rule", rule), ("num_passes", num_passes)),
                )
            )


@pytest.mark.parametrize("num_slots", [1, 2, 3, 5])
def test_fewer_slots_than_ranks_and_batches_larger_than_the_pool(num_slots: int) -> None:
    for features in (1, 2):
        compare(
            PoolCase(
                (2, 1, 0, 3),
                num_slots=num_slots,
                pool=(("features", features),),
                f2c=(("rule", "sequential"),),
            )
        )


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_the_official_preset(counts: tuple[int, ...]) -> None:
    options = (("features", 2), ("count_empty", True), ("scale", 32.0))
    for prefilled in (0, 11):
        compare(
            PoolCase(
                counts,
                margin=ArcFace(0.3),
                pool=options,
                f2c=tuple(OFFICIAL.items()),
                prefilled=prefilled,
            )
        )


@pytest.mark.parametrize("prefilled", [1, 9, 13, 20])
def test_a_pool_that_is_filled_first(prefilled: int) -> None:
    compare(PoolCase((3, 4, 0), prefilled=prefilled, is_planned=True))


@pytest.mark.parametrize(
    "options",
    [
        {"count_empty": True},
        {"outlier_weight": 0.0},
        {"outlier_weight": 8.0, "hard_negatives": 5, "outlier_clip": 0.3},
        {"hard_negatives": 1},
        {"scale": 900.0},
    ],
    ids=str,
)
def test_options_of_the_pool_with_plans_made_ahead(options: dict[str, Any]) -> None:
    for features in (1, 2):
        pool = (("features", features), *options.items())
        compare(PoolCase((4, 1, 3), pool=pool, is_planned=True))


def test_a_pool_of_everybody() -> None:
    compare(PoolCase((4, 3), num_slots=40, f2c=(("reduction", "sum"),)))


# --- DistributedDataParallel ----------------------------------------------------------------------


def train_in_ddp(case: PoolCase) -> tuple[list[float], Tensor, Tensor]:
    f2c = make_f2c(case, Ranks())
    before = f2c.pool.slot_rows.clone()
    wrapped = DistributedDataParallel(f2c)
    assert torch.equal(before, f2c.pool.slot_rows)  # not those of rank 0
    optimizer = torch.optim.SGD(f2c.probe_net.parameters(), lr=0.1)
    losses = []
    for step in range(STEPS):
        images, labels = half_batches(case, step)
        mine = part_of(case.counts_of(step), f2c.pool.ranks.rank)
        optimizer.zero_grad()
        loss = wrapped(Dual(images[:, mine].flatten(0, 1), labels[:, mine].flatten()))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, f2c.pool.slot_rows, f2c.probe_net.weight.detach()


def test_distributed_data_parallel_around_it_averages_to_the_gradient_of_the_whole_batch() -> None:
    case = PoolCase((4, 2, 1), pool=(("count_empty", True),))
    alone = train_pool_alone(case)
    found = on_ranks(train_in_ddp, 3, case)
    for losses, _, weight in found:
        assert losses == pytest.approx(alone.losses, rel=1e-10)
        torch.testing.assert_close(weight, alone.weight, **TOLERANCE)
    torch.testing.assert_close(torch.cat([rows for _, rows, _ in found]), alone.rows, **TOLERANCE)


# --- bytes ----------------------------------------------------------------------------------------


def sizes_of_passes(case: PoolCase) -> list[tuple[int, int, int]]:
    """Samples inside and outside, and k, of every pass of every step."""
    f2c = make_f2c(case, ALONE)
    planner, found = f2c.planner(), []
    for step in range(STEPS):
        _, labels = half_batches(case, step)
        for each in planner.plan(*(half.numpy() for half in labels)).passes:
            count = case.num_slots if f2c.pool.count_empty else each.num_filled
            k = min(f2c.pool.hard_negatives, count)
            found.append((len(each.inside), len(each.outside), k))
    return found


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("is_planned", [False, True])
def test_bytes_that_travel_are_those_documented(
    counts: tuple[int, ...], features: int, is_planned: bool
) -> None:
    case = PoolCase(counts, pool=(("features", features),), is_planned=is_planned)
    size, most, passes = len(counts), max(counts), sizes_of_passes(case)
    expected: dict[str, int] = {"as DDP does": STEPS * 8 * DIM}
    if size > 1:
        each = 8 * most * DIM * len(passes)
        expected |= {
            "counts": 24 * STEPS,
            GALLERY: each,
            "embeddings": each,
            "embedding gradients": size * each,
            "sums": features * sum(16 * inside for inside, _, _ in passes),
            HARDEST: features * sum(8 * outside * k for _, outside, k in passes),
        }
        if not is_planned:
            expected["labels"] = 16 * most * STEPS
    for rank in on_ranks(train_pool, size, case):
        assert rank.sent == (expected if size > 1 else {})


# --- what is refused ------------------------------------------------------------------------------


SLOTS = 5


def refused_and_gone_on(what: str) -> tuple[str, list[float], Tensor, dict[str, Tensor]]:
    """An error on rank 1 alone, if there is one; then a good step."""
    case = PoolCase((3, 2, 1), num_slots=SLOTS, f2c=(("rule", "sequential"),))
    f2c = make_f2c(case, Ranks())
    losses = [step_of(f2c, case, 0)]
    before, state = f2c.pool.slot_rows.clone(), f2c.get_extra_state()
    text = ""
    if what:
        try:
            step_of(f2c, case, 1, what=what if f2c.pool.ranks.rank == 1 else "")
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        assert torch.equal(before, f2c.pool.slot_rows)
        assert same(state, f2c.get_extra_state())
    losses += [step_of(f2c, case, step) for step in (2, 3)]
    return text, losses, f2c.pool.slot_rows, f2c.get_extra_state()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """But for the gallery net, which may have moved for a step that was refused."""
    moves = ("num_updates", "has_followed")
    return all(torch.equal(one[name], other[name]) for name in one if name not in moves)


def step_of(f2c: F2C, case: PoolCase, step: int, *, what: str = "") -> float:
    images, labels = half_batches(case, step)
    mine = part_of(case.counts, f2c.pool.ranks.rank)
    images, labels = images[:, mine].flatten(0, 1).clone(), labels[:, mine].flatten().clone()
    plan = None
    if what == "NaN in x":
        images[0, 3] = torch.nan
    elif what == "NaN in y":
        images[2, 3] = torch.nan
    elif what == "label":
        labels[1] = 99
    elif what == "odd":
        images = images[:3]
    elif what == "planned":
        x, y = half_batches(case, step)[1]
        plan = f2c.planner().plan(x.numpy(), y.numpy())
    loss: float = f2c(Dual(images, labels, plan)).item()
    return loss


REFUSED = {
    "NaN in x": ("NonFiniteError: embedding 0 of the batch on rank 1 holds nan",) * 2,
    "NaN in y": ("NonFiniteError: embedding 0 of the batch on rank 1 holds nan",) * 2,
    "label": (
        "LabelError: label 99 at position 1 of the batch on rank 1 is outside [0, 40)",
        "LabelError: rank 1 has refused the labels of its batch",
    ),
    "odd": ("ConfigError: a dual batch is two half", "LabelError: rank 1 has refused"),
    "planned": ("ConfigError: the ranks' batches have plans of steps [0, 2, 0] of the pool",) * 2,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_one_rank_refuses_is_refused_by_all_and_has_not_been(what: str) -> None:
    found, twins = (on_ranks(refused_and_gone_on, 3, each) for each in (what, ""))
    for rank, ((text, losses, rows, state), twin) in enumerate(zip(found, twins, strict=True)):
        assert text.startswith(REFUSED[what][rank != 1]), text
        assert losses == twin[1]
        assert torch.equal(rows, twin[2])
        assert same(state, twin[3])


def train_on_nothing() -> str:
    case = PoolCase((0, 0))
    with pytest.raises(Exception, match="equal size, got 0 images") as error:
        step_of(make_f2c(case, Ranks()), case, 0)
    return error.type.__name__


def test_a_step_without_an_image_is_refused() -> None:
    assert on_ranks(train_on_nothing, 2) == ["ConfigError"] * 2


# --- states ---------------------------------------------------------------------------------------


def resumed_on_ranks(case: PoolCase, state: dict[str, Any]) -> tuple[float, Tensor]:
    """From the state of one process."""
    f2c = make_f2c(case, Ranks())
    f2c.load_state_dict(state)
    return step_of(f2c, case, 4), f2c.pool.slot_rows


@pytest.mark.parametrize("is_old", [False, True])
def test_a_state_of_one_process_goes_on_on_three_ranks(is_old: bool) -> None:
    case = PoolCase((3, 0, 4), pool=(("features", 2),))
    alone = PoolCase((7,), pool=case.pool)
    f2c = make_f2c(alone, ALONE)
    for step in range(4):
        step_of(f2c, alone, step)
    state = {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in f2c.state_dict().items()
    }
    if is_old:
        state["pool.rows"] = state.pop("pool.slot_rows").transpose(0, 1).contiguous()
    found = on_ranks(resumed_on_ranks, 3, case, state)
    expected = step_of(f2c, alone, 4)
    assert [loss for loss, _ in found] == pytest.approx([expected] * 3, rel=1e-12)
    rows = torch.cat([rows for _, rows in found])
    torch.testing.assert_close(rows, f2c.pool.slot_rows, **TOLERANCE)


def shapes_of_a_state() -> list[int]:
    pool = DynamicClassPool(7, 4, margin=CosFace(0.2), features=2)
    f2c = F2C(nn.Linear(4, 4), pool, num_identities=9)
    state = f2c.state_dict()
    assert f2c.load_state_dict(state).missing_keys == []
    return list(state["pool.slot_rows"].shape)


def test_a_rank_saves_the_rows_of_its_own_slots() -> None:
    assert on_ranks(shapes_of_a_state, 3) == [[3, 2, 4], [2, 2, 4], [2, 2, 4]]


# --- Virtual FC -----------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(6,), (4, 3), (3, 0, 4), (1, 2, 0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("loss", ["cosface", "arcface"])
def test_virtual_fc_on_any_number_of_ranks(counts: tuple[int, ...], loss: str) -> None:
    found = on_ranks(train_anchors, len(counts), counts, loss)
    alone = train_anchors_alone(counts, loss)
    for rank in found:
        assert rank.losses == pytest.approx(alone.losses, rel=1e-10, abs=1e-12)
        torch.testing.assert_close(rank.rows, alone.rows, **TOLERANCE)
        assert torch.equal(rank.is_filled, alone.is_filled)
    for number, whole in enumerate(alone.gradients):
        parts = torch.cat([rank.gradients[number] for rank in found])
        torch.testing.assert_close(parts, whole, **TOLERANCE)
    most = max(counts)
    expected = {"counts": 16, "labels": 8 * most, "embeddings": 8 * most * DIM, "loss": 8}
    sent = {name: STEPS * number for name, number in expected.items() if len(counts) > 1}
    if sum(counts):
        assert all(rank.sent == sent for rank in found)

"""Heads whose centers are spread over 1 to 4 real processes, against the same head in one.

Losses, gradients of embeddings, centers and optimizer state after three steps; and the bytes that
travel, against what the docstrings say.
"""

from typing import Any

import pytest
import torch
from head_cases import DIM, HEADS, LOSSES, OPTIMIZERS, STEPS, Case, Trained, train, train_alone
from processes import on_ranks, outcomes
from torch import Tensor

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.heads.hard import CLASSES, COSINES, ROWS
from manyface.heads.resize import drop, grow
from manyface.margins import CosFace

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def compare(case: Case) -> None:
    """Train on as many ranks as there are counts, and alone."""
    found, alone = on_ranks(train, len(case.counts), case), train_alone(case)
    for rank in found:
        torch.testing.assert_close(torch.tensor(rank.losses), torch.tensor(alone.losses))
        assert torch.allclose(
            torch.tensor(rank.losses, dtype=torch.float64),
            torch.tensor(alone.losses, dtype=torch.float64),
            **TOLERANCE,
        )
        torch.testing.assert_close(rank.centers, alone.centers, **TOLERANCE)
        if alone.lists is not None:
            assert rank.lists is not None
            assert torch.equal(rank.lists, alone.lists)
    for number, expected in enumerate(alone.gradients):
        parts = [rank.gradients[number] for rank in found]
        torch.testing.assert_close(torch.cat(parts), expected, **TOLERANCE)
    _compare_rows(found, alone)


def _compare_rows(found: list[Trained], alone: Trained) -> None:
    assert [rank.first_row for rank in found] == [
        sum(len(before.rows["weight"]) for before in found[:number]) for number in range(len(found))
    ]
    for name, expected in alone.rows.items():
        together = torch.cat([rank.rows[name] for rank in found])
        torch.testing.assert_close(together, expected, **TOLERANCE)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_same_on_three_ranks(loss: str) -> None:
    for head in ("full", "partial"):
        compare(Case((3, 0, 5), loss=loss, head=head))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("counts", [(6,), (5, 1), (2, 3, 4), (0, 7, 1, 2)], ids=str)
def test_every_head_is_the_same_on_any_number_of_ranks(head: str, counts: tuple[int, ...]) -> None:
    compare(Case(counts, head=head))
    compare(Case(counts, head=head, loss="watching"))


def test_a_penalty_on_lengths_where_classes_take_no_part() -> None:
    compare(Case((3, 0, 5), head="random", loss="magface"))


@pytest.mark.parametrize("num_classes", [1, 2, 3, 5])
@pytest.mark.parametrize("head", ["full", "partial", "partial_all"])
def test_fewer_classes_than_ranks(num_classes: int, head: str) -> None:
    for loss in ("cosface", "smoothing", "curricularface", "huge_scale"):
        compare(Case((2, 1, 0, 3), num_classes=num_classes, head=head, loss=loss))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_clipped_and_accumulated(optimizer: str) -> None:
    for options in ({}, {"clips": True}, {"accumulates": True}):
        compare(Case((2, 3, 1), head="partial", optimizer=optimizer, **options))


def test_shuffled_rows_of_a_large_table() -> None:
    compare(Case((40, 0, 24), num_classes=20_011, head="blocks", loss="arcface"))
    compare(Case((40, 24), num_classes=20_011, head="strata", loss="cosface"))


def test_a_batch_that_is_empty_on_all_ranks() -> None:
    found = on_ranks(train, 3, Case((0, 0, 0)))
    for rank in found:
        assert rank.losses == [0.0] * STEPS
        assert all(gradient.shape == (0, DIM) for gradient in rank.gradients)


def test_rows_in_bfloat16_move_alike_on_any_number_of_ranks() -> None:
    """First steps agree but for the order of sums: bits of rounding hang on row and step alone."""
    case = Case((4, 4, 4), num_classes=97, head="partial", dtype=torch.bfloat16)
    found, alone = on_ranks(train, 3, case), train_alone(case)
    rows = torch.cat([rank.rows["weight"] for rank in found]).float()
    different = (rows != alone.rows["weight"].float()).float().mean()
    assert different < 0.02, different


def test_the_same_number_of_ranks_gives_the_same_bits() -> None:
    case = Case((3, 2), head="partial", dtype=torch.float32, loss="watching")
    one, two = on_ranks(train, 2, case), on_ranks(train, 2, case)
    for first, second in zip(one, two, strict=True):
        assert first.losses == second.losses
        for name, values in first.rows.items():
            assert torch.equal(values, second.rows[name])


@pytest.mark.parametrize("num_classes", [2, 3, 5, 29])
def test_nearest_classes_over_all_ranks(num_classes: int) -> None:
    for loss in ("cosface", "sub_centers"):
        compare(Case((2, 1, 0, 3), num_classes=num_classes, head="hard", loss=loss))
    found = on_ranks(train, 3, Case((2, 1, 3), num_classes, head="hard", dtype=torch.bfloat16))
    assert all(torch.equal(rank.lists, found[0].lists) for rank in found)


def test_nearest_classes_of_a_table_of_several_chunks() -> None:
    compare(Case((6, 5, 4), num_classes=2_600, head="hard"))


@pytest.mark.parametrize("loss", ["cosface", "sub_centers"])
def test_bytes_of_hard_negatives(loss: str) -> None:
    """29 classes on 10, 10 and 9: after the steps it is the turn of the first 14, 15 others, 14."""
    centers = 3 if loss == "sub_centers" else 1
    most = 10 + 9 + 10  # on the rank that has the most of them
    for rank in on_ranks(train, 3, Case((2, 1, 3), head="hard", loss=loss)):
        assert rank.sent[ROWS] == 8 * DIM * centers * most
        assert rank.sent[COSINES] == 8 * 4 * (14 + 15 + 14)
        assert rank.sent[CLASSES] == 4 * 4 * (14 + 15 + 14)


# --- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(6,), (4, 4), (5, 1, 0), (2, 3, 4, 1)], ids=str)
@pytest.mark.parametrize("loss", ["cosface", "smoothing", "mv_fixed", "huge_scale", "watching"])
def test_bytes_that_travel_are_those_documented(counts: tuple[int, ...], loss: str) -> None:
    size, most, everyone = len(counts), max(counts), sum(counts)
    expected: dict[str, int] = {}
    if size > 1:
        vectors = 2 - (loss in ("mv_fixed", "huge_scale", "watching"))
        vectors += 2 * (loss in ("smoothing", "watching"))
        per_step = {
            "counts": 16,
            "labels": 8 * most,
            "embeddings": 8 * most * DIM,
            "sums": 8 * vectors * everyone,
            "embedding gradients": 8 * size * most * DIM,
        }
        if loss in ("mv_fixed", "huge_scale", "watching"):
            per_step["target logits"] = 8 * everyone
        if loss == "huge_scale":
            per_step["largest logits"] = 8 * everyone
        if loss == "watching":
            per_step["target cosines"] = 8 * everyone
        expected = {name: STEPS * number for name, number in per_step.items()}
    for rank in on_ranks(train, size, Case(counts, loss=loss)):
        assert rank.sent == expected


# --- what is refused ------------------------------------------------------------------------------


def forward_with(labels_of: dict[int, list[int]], bad: dict[int, Any]) -> str:
    head = mf.FullFC(num_classes=9, dim=4, margin=CosFace(0.4))
    rank = head.ranks.rank
    embeddings = torch.randn(2, 4)
    for (row, column), value in bad.get(rank, {}).items():
        embeddings[row, column] = value
    before = head.centers.weight.clone()
    try:
        head(embeddings, torch.tensor(labels_of.get(rank, [0, 1])))
    except Exception as error:
        assert torch.equal(before, head.centers.weight)
        # The ranks still understand each other.
        loss: Tensor = head(torch.ones(2, 4), torch.tensor([1, 2]))
        return f"{type(error).__name__}: {error}; {loss.isfinite().item()}"
    return "fine"


def test_a_wrong_label_on_one_rank_is_an_error_on_all() -> None:
    found = on_ranks(forward_with, 3, {1: [3, 9]}, {})
    assert found[1].startswith("LabelError: label 9 at position 1 of the batch on rank 1")
    for rank in (0, 2):
        assert found[rank].startswith("LabelError: rank 1 has refused the labels")
    assert all(text.endswith("True") for text in found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_nan_on_one_rank_is_the_same_error_on_all(value: float) -> None:
    found = on_ranks(forward_with, 3, {}, {2: {(1, 3): value}})
    assert len(set(found)) == 1
    assert found[0].startswith(f"NonFiniteError: embedding 1 of the batch on rank 2 holds {value}")


def grow_and_drop() -> list[str]:
    def head(num_classes: int) -> mf.FullFC:
        return mf.FullFC(num_classes=num_classes, dim=4, margin=CosFace(0.4))

    found = []
    for act in (
        lambda: grow(head(11), head(9).state_dict(), torch.ones(2, 4)),
        lambda: drop(head(8), head(9).state_dict(), torch.tensor([3])),
    ):
        with pytest.raises(ConfigError) as error:
            act()
        found.append(str(error.value))
    return found


def test_growing_and_dropping_on_several_ranks_is_refused() -> None:
    for texts in on_ranks(grow_and_drop, 2):
        assert all("grow or drop in one process" in text for text in texts), texts


def leave_out_a_step() -> str:
    head = mf.FullFC(num_classes=9, dim=4, margin=CosFace(0.4))
    if head.ranks.rank == 0:
        head(torch.ones(2, 4), torch.tensor([1, 2]))
    return "done"


def test_a_rank_that_leaves_a_step_out_is_an_error_that_names_the_collective() -> None:
    found = outcomes(leave_out_a_step, 2, seconds=3)
    assert found[1] == (True, "done")
    is_right, text = found[0]
    assert not is_right
    assert "PeerError: rank 0 of 2 could not finish 'arguments'" in text

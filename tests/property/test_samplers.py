"""What every sampler of Partial FC must keep, and the law that each one draws by."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.centers import CenterTable, RowSGD
from manyface.heads.balanced import AliasTable, ClassBalanced, balance_weights
from manyface.heads.hard import HardNegatives, nearest_classes
from manyface.heads.row_order import SHUFFLED_FROM, RowOrder
from manyface.heads.sampling import (
    RowSampler,
    SampleSpec,
    Strata,
    Uniform,
    sample_blocks,
    sample_classes,
    sample_size,
)


def draw_of(num_rows: int, size: int, *, seed: int = 1, step: int = 0) -> SampleSpec:
    return SampleSpec(num_rows, size, seed, step, RowOrder(num_rows, seed=seed))


def random_weights(num_rows: int, seed: int) -> np.ndarray:
    """Of classes with 1 to some thousand images."""
    counts = np.random.default_rng(seed).zipf(1.6, num_rows).clip(1, 5000)
    return balance_weights(counts)


def hard(num_rows: int, seed: int, *, reached: float = 1.0) -> HardNegatives:
    """With random lists for the first classes, none for the others."""
    neighbours = min(4, num_rows - 1)
    sampler = HardNegatives(num_rows, neighbours=neighbours)
    shift = np.random.default_rng(seed).permuted(
        np.tile(np.arange(1, num_rows), (num_rows, 1)), axis=1
    )[:, :neighbours]
    lists = (np.arange(num_rows)[:, None] + shift) % num_rows
    lists[int(reached * num_rows) :] = -1
    sampler.nearest.copy_(torch.from_numpy(lists))
    return sampler


KINDS = ["uniform", "blocks", "strata", "strata of blocks", "balanced", "hard", "half hard"]


def sampler_of(kind: str, num_rows: int, seed: int) -> RowSampler:
    if kind.startswith("strata"):
        return Strata(1 + seed % min(num_rows, 9), block=3 if "blocks" in kind else None)
    if kind == "balanced":
        return ClassBalanced(random_weights(num_rows, seed))
    if "hard" in kind and num_rows > 1:
        return hard(num_rows, seed, reached=0.5 if "half" in kind else 1.0)
    return Uniform(block=4 if kind == "blocks" else None)


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(1, 300),
    rate=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])),
    batch=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample(kind: str, num_rows: int, rate: float, batch: int, seed: int, step: int) -> None:
    draw = torch.Generator().manual_seed(seed % 2**31)
    labels = torch.randint(num_rows, (batch,), generator=draw)
    size = sample_size(num_rows, rate)
    sampler, of = sampler_of(kind, num_rows, seed), draw_of(num_rows, size, seed=seed, step=step)
    sampler.check(num_rows, num_rows)
    ids, targets = sampler.draw(labels, of)
    positives = len(labels.unique())
    assert ids.dtype == targets.dtype == torch.int64
    assert torch.equal(ids[targets], labels), "every positive takes part, targets are right"
    assert ids.unique().shape == ids.shape, "distinct"
    assert 0 <= int(ids.min()) <= int(ids.max()) < num_rows
    again = sampler_of(kind, num_rows, seed).draw(labels, of)
    assert torch.equal(ids, again[0])
    assert torch.equal(targets, again[1])
    if rate == 1:
        assert len(ids) == num_rows
    if "strata" in kind:
        assert len(ids) <= max(size, 1) + positives
    elif "blocks" in kind:
        assert len(ids) <= max(size, positives)
    else:
        assert len(ids) == max(size, positives)
    if rate == 0:
        assert torch.equal(ids.sort().values, labels.unique()), "positives alone"


@pytest.mark.parametrize("kind", KINDS)
def test_other_steps_and_seeds_draw_others(kind: str) -> None:
    labels = torch.tensor([3, 500])
    samples = {
        (seed, step): frozenset(
            sampler_of(kind, 1000, 4)
            .draw(labels, draw_of(1000, 100, seed=seed, step=step))[0]
            .tolist()
        )
        for seed in (1, 2)
        for step in (0, 1, 2)
    }
    assert len(set(samples.values())) == 6


def test_uniform_draws_what_it_drew_before_it_was_a_sampler() -> None:
    labels = torch.tensor([7, 3, 3, 40])
    ids, targets = Uniform().draw(labels, draw_of(50, 8, seed=1, step=2))
    assert ids.tolist() == [3, 7, 15, 22, 27, 35, 40, 44]
    assert torch.equal(ids, sample_classes(labels, num_classes=50, size=8, seed=1, step=2))
    assert targets.tolist() == [ids.tolist().index(label) for label in labels.tolist()]
    of = {"num_rows": 5000, "size": 600, "seed": 1, "step": 2}
    blocks = Uniform().draw(labels, draw_of(5000, 600, seed=1, step=2))
    assert all(map(torch.equal, blocks, sample_blocks(labels, block=2, **of)))


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(1, 300),
    rate=st.floats(0, 0.999),
    seed=st.integers(0, 2**40),
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_foreseen_holds_all_but_what_hangs_on_labels(
    kind: str, num_rows: int, rate: float, seed: int
) -> None:
    labels = torch.randint(num_rows, (9,), generator=torch.Generator().manual_seed(seed % 2**31))
    size = sample_size(num_rows, rate)
    sampler, of = sampler_of(kind, num_rows, seed), draw_of(num_rows, size, seed=seed)
    if size >= num_rows:
        return
    blocks = sampler.foreseen(of)
    assert bool((np.diff(blocks.starts) > 0).all()), "sorted"
    seen = (blocks.starts[:, None] + np.arange(blocks.size)).ravel()
    known = set(seen.tolist()) | set(labels.tolist())
    if isinstance(sampler, HardNegatives):
        known |= set(sampler.nearest[labels].flatten().tolist())
    assert set(sampler.draw(labels, of)[0].tolist()) <= known


# --- the law --------------------------------------------------------------------------------------


def check_chi_square(counts: np.ndarray, shares: np.ndarray) -> None:
    """Within five standard deviations of its mean, the degrees of freedom."""
    expected = counts.sum() * shares / shares.sum()
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5, (statistic, freedom)


def drawn(sampler: RowSampler, labels: Tensor, num_rows: int, size: int, steps: int) -> np.ndarray:
    """How often each class takes part."""
    counts = np.zeros(num_rows, np.int64)
    for step in range(steps):
        counts[sampler.draw(labels, draw_of(num_rows, size, step=step))[0].numpy()] += 1
    return counts


@pytest.mark.parametrize("count", [1, 4])
def test_strata_are_uniform(count: int) -> None:
    counts = drawn(Strata(count), torch.tensor([3, 150]), 200, 40, 3000)
    assert counts[3] == counts[150] == 3000
    others = np.delete(counts, [3, 150])
    # Draws of a step are without replacement, which makes the statistic smaller, not larger.
    shares = np.full(200, 38 / 198 if count == 1 else 40 / 200)
    if count == 4:  # the strata of the positives draw one negative less
        shares[:50] = shares[150:] = 9 / 49
    expected = 3000 * np.delete(shares, [3, 150])
    assert float((((others - expected) ** 2) / expected).sum()) < 198 + 5 * (2 * 198) ** 0.5
    assert np.abs(others.mean() / expected.mean() - 1) < 0.01


def race(weights: np.ndarray, size: int, steps: int) -> np.ndarray:
    """The definition: how often each class is among the first to arrive."""
    draws = np.random.default_rng(0)
    counts = np.zeros(len(weights), np.int64)
    for _ in range(steps):
        counts[np.argsort(draws.standard_exponential(len(weights)) / weights)[:size]] += 1
    return counts


@pytest.mark.parametrize("size", [5, 30, 55])  # by the table; and of most classes, by the rest
@pytest.mark.parametrize("giant", [1.0, 1e5])
def test_balanced_draws_are_an_exponential_race(size: int, giant: float) -> None:
    weights = random_weights(60, 3)
    weights[7] *= giant
    # Two positives of almost no weight, so that what remains is the race.
    weights[:2] = 1e-9
    steps = 1500
    found = drawn(ClassBalanced(weights), torch.tensor([0, 1]), 60, size + 2, steps)
    assert found[0] == found[1] == steps
    expected = race(weights, size, steps)
    share = (found + expected)[2:] / (2 * steps)
    deviation = np.sqrt(2 * steps * share * (1 - share)).clip(1)
    assert float((np.abs(found - expected)[2:] / deviation).max()) < 5


def test_the_first_class_is_drawn_by_its_weight() -> None:
    counts = np.array([1, 2, 5, 10, 100, 1, 3, 50])
    table = AliasTable(balance_weights(counts))
    found = np.bincount(table.draw(200_000, np.random.default_rng(0)), minlength=8)
    check_chi_square(found, 1.0 / counts)
    roots = AliasTable(balance_weights(counts, power=0.5))
    found = np.bincount(roots.draw(200_000, np.random.default_rng(0)), minlength=8)
    check_chi_square(found, counts**-0.5)


@settings(max_examples=200, deadline=None)
@given(
    weights=st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=80)
    | st.lists(st.integers(1, 10), min_size=1, max_size=9)
)
@example(weights=[2, 3, 1])  # 2 is the mean: it has nothing to give
def test_an_alias_table_holds_its_weights(weights: list[float]) -> None:
    wanted = np.array(weights) / sum(weights)
    table = AliasTable(np.array(weights))
    probability = table._probability.astype(np.float64)
    assert probability.min() >= -1e-5
    assert probability.max() <= 1 + 1e-5
    held = probability.copy()
    np.add.at(held, table._alias, 1.0 - probability)
    np.testing.assert_allclose(held / len(weights), wanted, atol=3e-7)


def test_balanced_weights_are_of_classes_whatever_rows_they_lie_in() -> None:
    num_classes = SHUFFLED_FROM + 3
    weights = np.full(num_classes, 1e-9)
    weights[1000:2000] = 1.0
    of = draw_of(num_classes, 500, seed=3)
    label = of.order(torch.tensor([1234]))
    ids, _ = ClassBalanced(weights).draw(label, of)
    assert set(ids.tolist()) <= set(of.order(torch.arange(1000, 2000)).tolist())


# --- strata ---------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    num_rows=st.integers(8, 300),
    rate=st.floats(0, 1),
    batch=st.integers(1, 60),
    seed=st.integers(0, 2**30),
)
def test_a_stratum_draws_by_its_own_labels(
    num_rows: int, rate: float, batch: int, seed: int
) -> None:
    labels = torch.randint(num_rows, (batch,), generator=torch.Generator().manual_seed(seed))
    sampler, of = Strata(8), draw_of(num_rows, sample_size(num_rows, rate), seed=seed)
    ids, _ = sampler.draw(labels, of)
    for stratum in range(8):
        alone, _ = sampler.draw(inside(sampler, stratum, labels, num_rows), of)
        expected = inside(sampler, stratum, ids, num_rows)
        assert torch.equal(inside(sampler, stratum, alone, num_rows), expected)


def test_strata_load_ranks_equally_unless_positives_outnumber_the_share() -> None:
    sampler, of = Strata(4), draw_of(402, 80)

    def loads(labels: Tensor) -> list[int]:
        ids, _ = sampler.draw(labels, of)
        return [len(inside(sampler, stratum, ids, 402)) for stratum in range(4)]

    assert loads(torch.tensor([0, 1, 2, 399])) == [20, 20, 20, 20]
    assert loads(torch.arange(33)) == [33, 20, 20, 20]  # all in the first stratum


def inside(sampler: Strata, stratum: int, rows: Tensor, num_rows: int) -> Tensor:
    """Those of `rows` that are in the stratum."""
    start, stop = sampler.borders(stratum, num_rows)
    return rows[(rows >= start) & (rows < stop)]


# --- hard negatives -------------------------------------------------------------------------------


def table(num_rows: int) -> CenterTable:
    return CenterTable(num_rows, 8, seed=0, optimizer=RowSGD())


@pytest.mark.parametrize("sub_centers", [1, 3])
def test_nearest_classes_are_those_of_all_cosines(sub_centers: int) -> None:
    centers = table(2500 * sub_centers)
    found = nearest_classes(centers, slice(40, 90), count=5, sub_centers=sub_centers)
    unit = torch.nn.functional.normalize(centers.weight.double(), dim=1)
    cosines = unit[40 * sub_centers : 90 * sub_centers] @ unit.T
    cosines = cosines.view(50, sub_centers, 2500, sub_centers).amax(dim=(1, 3))
    cosines[torch.arange(50), torch.arange(40, 90)] = -2
    assert torch.equal(found.long(), cosines.topk(5, dim=1).indices)
    assert found.dtype == torch.int32


def test_the_nearest_of_every_class_come_first() -> None:
    sampler = HardNegatives(100, share=0.5, neighbours=3)
    sampler.nearest[10] = torch.tensor([20, 21, 22])
    sampler.nearest[11] = torch.tensor([30, 10, 20])  # one is a positive, one is known
    labels = torch.tensor([11, 10, 11])
    for size, expected in ((4, {20}), (6, {20, 30}), (8, {20, 30, 21}), (12, {20, 30, 21, 22})):
        chosen = set.intersection(
            *(
                set(sampler.draw(labels, draw_of(100, size, step=step))[0].tolist())
                for step in range(60)
            )
        )
        assert chosen == {10, 11} | expected
    counts = drawn(sampler, labels, 100, 12, 4000)
    uniform = np.delete(counts, [10, 11, 20, 30, 21, 22])
    expected_count = 4000 * 6 / 94
    statistic = float(((uniform - expected_count) ** 2 / expected_count).sum())
    assert statistic < 94 + 5 * (2 * 94) ** 0.5


def test_every_list_is_made_once_in_so_many_steps() -> None:
    for num_classes, refresh_steps in ((10, 3), (5, 8), (7, 1)):
        sampler = HardNegatives(num_classes, neighbours=2, refresh_steps=refresh_steps)
        centers = table(num_classes)
        made = torch.zeros(num_classes, dtype=torch.int64)
        for step in range(100, 100 + refresh_steps):
            sampler.nearest.fill_(-1)
            sampler.follow(centers, sub_centers=1, step=step)
            made += (sampler.nearest >= 0).all(dim=1)
        assert made.tolist() == [1] * num_classes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Strata(0), "1 stratum or more"),
        (lambda: Strata(6).check(5, 5), "take 5 strata at most"),
        (lambda: Uniform(0), "block must be at least 1"),
        (lambda: ClassBalanced(np.array([1.0, 0.0])), "above 0"),
        (lambda: ClassBalanced(np.array([1.0, np.nan])), "above 0"),
        (lambda: ClassBalanced(np.array([1.0, 1e-300])), "finite in float32"),
        (lambda: ClassBalanced(np.array([1.0, 1e300])), "finite in float32"),
        (lambda: ClassBalanced(np.array([])), "one number for each"),
        (lambda: ClassBalanced(np.ones(3)).check(4, 4), "3 weights for 4 classes"),
        (lambda: balance_weights(np.array([3, 0])), "needs an image"),
        (lambda: HardNegatives(5, neighbours=5), "expected 4 at most"),
        (lambda: HardNegatives(5, neighbours=0), "neighbours must be a whole number"),
        (lambda: HardNegatives(5, neighbours=2, refresh_steps=0), "refresh_steps must be"),
        (lambda: HardNegatives(5, neighbours=2, share=1.5), r"in \[0, 1\]"),
        (lambda: HardNegatives(5, neighbours=2).check(6, 6), "number of classes of the head"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()  # type: ignore[operator]

"""The sample of a step: exact size, all positives, distinct, sorted, uniform, repeatable."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.heads.row_order import SHUFFLED_FROM, RowOrder
from manyface.heads.sampling import block_size, sample_blocks, sample_classes, sample_size


@settings(max_examples=200, deadline=None)
@given(
    num_classes=st.integers(1, 400),
    rate=st.floats(0, 1),
    batch=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
)
def test_sample(num_classes: int, rate: float, batch: int, seed: int, step: int) -> None:
    draw = torch.Generator().manual_seed(seed % 2**31)
    labels = torch.randint(num_classes, (batch,), generator=draw)
    size = sample_size(num_classes, rate)

    def sample() -> torch.Tensor:
        return sample_classes(labels, num_classes=num_classes, size=size, seed=seed, step=step)

    ids = sample()
    assert ids.shape[0] == max(size, labels.unique().shape[0])
    assert bool((ids.diff() > 0).all()), "sorted and distinct"
    assert bool(torch.isin(labels, ids).all()), "every positive takes part"
    assert int(ids[0]) >= 0
    assert int(ids[-1]) < num_classes
    assert torch.equal(ids, sample())


def test_negatives_are_uniform_over_steps() -> None:
    labels = torch.tensor([3, 500])
    counts = torch.zeros(1000)
    for step in range(2000):
        counts[sample_classes(labels, num_classes=1000, size=100, seed=1, step=step)] += 1
    assert counts[3] == counts[500] == 2000
    negatives = counts[(counts != 2000)]
    expected = 2000 * 98 / 998
    deviation = (expected * (1 - 98 / 998)) ** 0.5
    assert float((negatives - expected).abs().max()) < 5 * deviation
    assert 0.85 < float(negatives.std() / deviation) < 1.15


@settings(max_examples=200, deadline=None)
@given(
    num_rows=st.integers(1, 400),
    rate=st.floats(0, 0.999),
    block=st.integers(1, 70),
    batch=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
)
def test_blocks(num_rows: int, rate: float, block: int, batch: int, seed: int, step: int) -> None:
    draw = torch.Generator().manual_seed(seed % 2**31)
    labels = torch.randint(num_rows, (batch,), generator=draw)
    size = sample_size(num_rows, rate)

    def sample() -> tuple[torch.Tensor, torch.Tensor]:
        return sample_blocks(
            labels, num_rows=num_rows, size=size, block=block, seed=seed, step=step
        )

    ids, targets = sample()
    positives = labels.unique().shape[0]
    assert max(size - positives - 2 * block, 0) <= ids.shape[0] <= max(size, positives)
    assert ids.unique().shape == ids.shape
    assert torch.equal(ids[targets], labels)
    assert 0 <= int(ids.min()) <= int(ids.max()) < num_rows
    assert torch.equal(ids, sample()[0])


def test_blocks_are_uniform_over_steps() -> None:
    labels = torch.tensor([3, 500])
    counts = torch.zeros(1003)
    for step in range(2000):
        ids, _ = sample_blocks(labels, num_rows=1003, size=162, block=8, seed=1, step=step)
        counts[ids] += 1
    assert counts[3] == counts[500] == 2000
    negatives = counts[counts != 2000]
    share = (162 - 2) // 8 / 126  # of the blocks
    deviation = (2000 * share * (1 - share)) ** 0.5
    assert float((negatives - 2000 * share).abs().max()) < 5 * deviation


def test_a_sample_has_at_least_256_blocks() -> None:
    for size in (1, 255, 256, 511, 512, 5000, 16_384, 10**6):
        block = block_size(size)
        assert block == 1 or size / block >= 256
    assert block_size(511) == 1
    assert block_size(512) == 2
    assert block_size(10**6) == 64


def test_rows_of_large_tables_are_a_permutation_and_of_small_ones_the_classes() -> None:
    classes = torch.arange(SHUFFLED_FROM)
    rows = RowOrder(SHUFFLED_FROM, seed=3)(classes)
    assert torch.equal(rows.sort().values, classes)
    assert int((rows.diff() == 1).sum()) < 10, "neighbours are parted"
    assert not torch.equal(rows, RowOrder(SHUFFLED_FROM, seed=4)(classes))
    small = torch.arange(SHUFFLED_FROM - 1)
    assert torch.equal(RowOrder(SHUFFLED_FROM - 1, seed=3)(small), small)
